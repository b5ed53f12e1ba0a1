package udp

import (
	"bytes"
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestAFullQueueLeavesRoomForAFlowThatSendsLittle(t *testing.T) {
	q := newQueue()
	const greedy = 30
	big := make([]byte, 9000)
	dropped := false
	for range 2000 {
		for flow := range uint32(greedy) {
			dropped = !q.add(wire.DatagramFrame{Kind: wire.DatagramToHost, Flow: flow, Payload: big}) || dropped
		}
	}
	if !dropped {
		t.Fatal("the queue takes everything")
	}
	if n := len(q.frames); n > maxQueue || n < maxQueue/2 {
		t.Errorf("%d bytes are queued, at most %d are allowed", n, maxQueue)
	}
	if !q.add(wire.DatagramFrame{Kind: wire.DatagramToHost, Flow: greedy, Payload: make([]byte, wire.MaxDatagram)}) {
		t.Error("there is no room for a flow that has sent nothing yet")
	}
	q.take(nil)
	if !q.add(wire.DatagramFrame{Kind: wire.DatagramToHost, Flow: 0, Payload: big}) {
		t.Error("the queue was emptied and takes nothing")
	}
}

func TestTroubleIsJoinedAndBounded(t *testing.T) {
	q := newQueue()
	for flow := range uint32(2 * maxTroubled) {
		q.report(flow, 1, "first")
		q.report(flow, 2, "last")
	}
	d := wire.NewDatagramReader(bytes.NewReader(q.take(nil)))
	n := 0
	for {
		f, err := d.Next()
		if err != nil {
			break
		}
		if n++; f.Lost != 3 || f.Reason != "last" {
			t.Fatalf("%+v", f)
		}
	}
	if n != maxTroubled {
		t.Errorf("%d reports, want %d", n, maxTroubled)
	}
}

func TestAWriterThatIsStuckDoesNotStopTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // nobody reads
		q := newQueue()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.write(ctx, near) }()
		for range 1000 {
			q.add(wire.DatagramFrame{Kind: wire.DatagramToHost, Flow: 1, Payload: make([]byte, wire.MaxDatagram)})
		}
		synctest.Wait()
		if len(q.frames) > maxQueue {
			t.Errorf("%d bytes are queued", len(q.frames))
		}
		cancel()
		far.Close()
		<-done
	})
}

func TestAFullTableLetsGoOfTheFlowThatWasIdleLongest(t *testing.T) {
	table := newFlowTable[int, int](3)
	for i := range 3 {
		table.add(i, i)
	}
	table.get(0)
	if k, got, ok := table.add(3, 3); !ok || got != 1 || k != 1 {
		t.Errorf("%d went, want 1", got)
	}
	// Questions that nobody answers do not push out a conversation.
	table.answer(0)
	for i := 4; i < 20; i++ {
		if _, got, ok := table.add(i, i); !ok || got == 0 {
			t.Fatalf("%d went", got)
		}
	}
	for i := 20; i < 30; i++ {
		table.add(i, i)
		table.answer(i)
	}
	if _, ok := table.get(0); ok || len(table.entries) != 3 {
		t.Errorf("%d flows are left, and the oldest of them", len(table.entries))
	}
	if got := table.clear(); len(got) != 3 || len(table.entries) != 0 {
		t.Errorf("cleared %d flows", len(got))
	}
}

func TestGuestFlowsAreBounded(t *testing.T) {
	service, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	const most = 50
	host, guest := tcpPair(t)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- Serve(ctx, stream{guest}, most, budget.New(budget.Link), dial) }()
	target := service.LocalAddr().(*net.UDPAddr).AddrPort()
	buf := make([]byte, 100)
	peers := make(map[string]bool)
	for i := range uint32(3 * most) {
		f := wire.DatagramFrame{Kind: wire.DatagramToGuest, Flow: i, Target: target, Payload: []byte("hello")}
		if _, err := host.Write(f.Append(nil)); err != nil {
			t.Fatal(err)
		}
		_ = service.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, from, err := service.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		peers[from.String()] = true
	}
	// The first flows are gone; that their answers go nowhere hurts nobody.
	for peer := range peers {
		to, _ := net.ResolveUDPAddr("udp", peer)
		_, _ = service.WriteTo([]byte("answer"), to)
	}
	d := wire.NewDatagramReader(host)
	_ = host.SetReadDeadline(time.Now().Add(5 * time.Second))
	for range most {
		if f, err := d.Next(); err != nil || f.Kind == wire.DatagramToHost && f.Flow < 2*most {
			t.Fatalf("%+v, %v", f, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// stream is a connection that carries datagrams.
type stream struct{ *net.TCPConn }

func (s stream) Abort() { _ = s.Close() }

func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	one, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	two, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close(); two.Close() })
	return one.(*net.TCPConn), two.(*net.TCPConn)
}

// large is a budget from which little comes back while a test runs.
func large() *budget.Budget { return budget.New(largeBudget) }

var largeBudget = budget.Limits{Share: 1e-9, Burst: time.Hour}

// taken is how much of it has been spent.
func taken(b *budget.Budget) time.Duration { return largeBudget.Burst - b.Left() }

// A guest may have links, and bridges, one after the other and beside each other.
func TestDatagramsForNobodyAreTakenFromOneBudget(t *testing.T) {
	const frames = 100
	all := large()
	var before time.Duration
	for link := range 3 {
		host, guest := tcpPair(t)
		seen := make(chan struct{}, frames)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- NewDatagrams().Run(ctx, stream{host}, Handler{Budget: all, Reply: func(uint32, []byte, int, *Burst) int {
				seen <- struct{}{}
				return 1
			}})
		}()
		f := wire.DatagramFrame{Kind: wire.DatagramToHost, Flow: 1, Payload: []byte("x")}
		for range frames {
			if _, err := guest.Write(f.Append(nil)); err != nil {
				t.Fatal(err)
			}
			<-seen
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		// The last one may not be counted where the end came first.
		if taken := taken(all) - before; taken < (frames-1)*budget.MessageCost {
			t.Errorf("link %d: %d datagrams for nobody have cost %v", link, frames, taken)
		}
		before = taken(all)
	}
}

func TestAChurnOfFlowsIsPaidForUnlessTheyAreAnswered(t *testing.T) {
	const flows, most = 300, 50
	for name, row := range map[string]struct{ answers, ends bool }{
		"ended in vain":   {false, true},
		"evicted in vain": {false, false},
		"answered":        {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			service, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer service.Close()
			host, guest := tcpPair(t)
			all := large()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- Serve(ctx, stream{guest}, most, all, dial) }()
			answers := wire.NewDatagramReader(host)
			_ = host.SetReadDeadline(time.Now().Add(20 * time.Second))
			_ = service.SetReadDeadline(time.Now().Add(20 * time.Second))
			buf := make([]byte, 10)
			for i := range uint32(flows) {
				f := wire.DatagramFrame{Kind: wire.DatagramToGuest, Flow: i, Target: service.LocalAddr().(*net.UDPAddr).AddrPort(), Payload: []byte("?")}
				if _, err := host.Write(f.Append(nil)); err != nil {
					t.Fatal(err)
				}
				_, from, err := service.ReadFrom(buf)
				if err != nil {
					t.Fatal(err)
				}
				if row.answers {
					_, _ = service.WriteTo([]byte("!"), from)
					if _, err := answers.Next(); err != nil {
						t.Fatal(err)
					}
				}
				if row.ends {
					end := wire.DatagramFrame{Kind: wire.DatagramEnd, Flow: i}
					if _, err := host.Write(end.Append(nil)); err != nil {
						t.Fatal(err)
					}
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			taken, paid := taken(all), (flows-most-1)*flowCost
			if row.answers && taken >= paid {
				t.Errorf("%d flows that were answered have cost %v", flows, taken)
			}
			if !row.answers && taken < paid {
				t.Errorf("%d flows that nobody answered have cost %v, want at least %v", flows, taken, paid)
			}
		})
	}
}
