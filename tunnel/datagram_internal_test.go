package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

var sampleDatagrams = []datagramFrame{
	{kind: datagramToGuest, flow: 1, target: netip.MustParseAddrPort("127.0.0.1:53"), payload: []byte("question")},
	{kind: datagramToGuest, flow: 1<<32 - 1, target: netip.MustParseAddrPort("[::1]:53")},
	{kind: datagramToHost, flow: 2, payload: make([]byte, MaxDatagram)},
	{kind: datagramToHost, flow: 2},
	{kind: datagramEnd, flow: 3},
	{kind: datagramTrouble, flow: 4, lost: 7, reason: "nothing receives"},
}

func equalFrames(a, b datagramFrame) bool {
	return a.kind == b.kind && a.flow == b.flow && a.target == b.target && bytes.Equal(a.payload, b.payload) &&
		a.lost == b.lost && a.reason == b.reason
}

func TestDatagramFramesSurviveTheWire(t *testing.T) {
	var encoded []byte
	for _, f := range sampleDatagrams {
		encoded = f.append(encoded)
	}
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(encoded), "byte by byte": iotest.OneByteReader(bytes.NewReader(encoded))} {
		d := newDatagramReader(r)
		for i, want := range sampleDatagrams {
			if got, err := d.next(); err != nil || !equalFrames(got, want) {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
		}
		if _, err := d.next(); err != io.EOF {
			t.Fatalf("%s: at the end: %v", name, err)
		}
	}
	d := newDatagramReader(bytes.NewReader(encoded[:len(encoded)-1]))
	for range len(sampleDatagrams) - 1 {
		if _, err := d.next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a frame that is cut short: %v", err)
	}
}

func FuzzDatagramFrames(f *testing.F) {
	for _, s := range sampleDatagrams {
		f.Add(s.append(nil))
	}
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 2, 16, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDatagramReader(bytes.NewReader(b))
		for {
			got, err := d.next()
			if err != nil {
				return
			}
			if len(got.payload) > MaxDatagram || len(got.reason) > maxReason {
				t.Fatalf("%d bytes of payload, %d of reason got through", len(got.payload), len(got.reason))
			}
			again, err := newDatagramReader(bytes.NewReader(got.append(nil))).next()
			if err != nil || !equalFrames(got, again) {
				t.Fatalf("%+v became %+v, %v", got, again, err)
			}
		}
	})
}

func TestAFullQueueLeavesRoomForAFlowThatSendsLittle(t *testing.T) {
	q := newDatagramQueue()
	const greedy = 30
	big := make([]byte, 9000)
	dropped := false
	for range 2000 {
		for flow := range uint32(greedy) {
			dropped = !q.add(datagramFrame{kind: datagramToHost, flow: flow, payload: big}) || dropped
		}
	}
	if !dropped {
		t.Fatal("the queue takes everything")
	}
	if n := len(q.frames); n > maxDatagramQueue || n < maxDatagramQueue/2 {
		t.Errorf("%d bytes are queued, at most %d are allowed", n, maxDatagramQueue)
	}
	if !q.add(datagramFrame{kind: datagramToHost, flow: greedy, payload: make([]byte, MaxDatagram)}) {
		t.Error("there is no room for a flow that has sent nothing yet")
	}
	q.take(nil)
	if !q.add(datagramFrame{kind: datagramToHost, flow: 0, payload: big}) {
		t.Error("the queue was emptied and takes nothing")
	}
}

func TestTroubleIsJoinedAndBounded(t *testing.T) {
	q := newDatagramQueue()
	for flow := range uint32(2 * maxTroubled) {
		q.report(flow, 1, "first")
		q.report(flow, 2, "last")
	}
	d := newDatagramReader(bytes.NewReader(q.take(nil)))
	n := 0
	for {
		f, err := d.next()
		if err != nil {
			break
		}
		if n++; f.lost != 3 || f.reason != "last" {
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
		q := newDatagramQueue()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.write(ctx, near) }()
		for range 1000 {
			q.add(datagramFrame{kind: datagramToHost, flow: 1, payload: make([]byte, MaxDatagram)})
		}
		synctest.Wait()
		if len(q.frames) > maxDatagramQueue {
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
	go func() { done <- serveGuestDatagrams(ctx, TCP(guest), most, newEffort(linkEffort), nil) }()
	target := service.LocalAddr().(*net.UDPAddr).AddrPort()
	buf := make([]byte, 100)
	peers := make(map[string]bool)
	for i := range uint32(3 * most) {
		f := datagramFrame{kind: datagramToGuest, flow: i, target: target, payload: []byte("hello")}
		if _, err := host.Write(f.append(nil)); err != nil {
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
	d := newDatagramReader(host)
	_ = host.SetReadDeadline(time.Now().Add(5 * time.Second))
	for range most {
		if f, err := d.next(); err != nil || f.kind == datagramToHost && f.flow < 2*most {
			t.Fatalf("%+v, %v", f, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

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
