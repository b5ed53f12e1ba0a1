package tunnel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/udp"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// answer is what came back by a flow.
type answer struct {
	flow    uint32
	payload []byte
	lost    uint32
	reason  string // of trouble
}

// datagrams runs a datagram stream until the test ends.
func datagrams(t *testing.T, l *link) (*udp.Datagrams, <-chan answer) {
	t.Helper()
	s, err := l.Open(t.Context(), wire.UDPTarget(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, answers := udp.NewDatagrams(), make(chan answer, 10_000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- d.Run(ctx, s, udp.Handler{
			Reply: func(flow uint32, b []byte, _ int, _ *udp.Burst) (useless int) {
				answers <- answer{flow: flow, payload: bytes.Clone(b)}
				return 0
			},
			Trouble: func(flow, lost uint32, reason string) { answers <- answer{flow: flow, lost: lost, reason: reason} },
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("datagram stream: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("a datagram stream does not end")
		}
	})
	return d, answers
}

// send has a datagram go out at once.
func send(d *udp.Datagrams, flow uint32, to netip.AddrPort, payload []byte) bool {
	defer d.Flush()
	return d.Add(flow, to, payload)
}

func next(t *testing.T, answers <-chan answer) answer {
	t.Helper()
	select {
	case a := <-answers:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("no answer")
		return answer{}
	}
}

// udpService answers each datagram with what reply makes of it.
func udpService(t *testing.T, address string, reply func(b []byte, from net.Addr) []byte) (addr netip.AddrPort, stop func()) {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	var done sync.WaitGroup
	done.Go(func() {
		for buf := make([]byte, 1<<16); ; {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteTo(reply(buf[:n], from), from)
			}
		}
	})
	stop = sync.OnceFunc(func() { c.Close(); done.Wait() })
	t.Cleanup(stop)
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), stop
}

func same(b []byte, _ net.Addr) []byte { return b }

func TestDatagramsArriveWholeAndByTheirFlow(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		d, answers := datagrams(t, l)
		addr, _ := udpService(t, "127.0.0.1:0", same)
		dice := rand.NewChaCha8([32]byte{1})
		for n, size := range []int{0, 1, 1472, 65000, wire.MaxDatagram, 12} {
			sent := make(map[uint32][32]byte)
			for flow := range uint32(20) {
				b := make([]byte, size)
				_, _ = dice.Read(b)
				sent[flow] = sha256.Sum256(b)
				if !send(d, flow, addr, b) {
					t.Fatalf("round %d: no room", n)
				}
			}
			for len(sent) > 0 {
				a := next(t, answers)
				if sum := sha256.Sum256(a.payload); len(a.payload) != size || sum != sent[a.flow] {
					t.Fatalf("flow %d: %d bytes, want %d: %s", a.flow, len(a.payload), size, a.reason)
				}
				delete(sent, a.flow)
			}
		}
		if send(d, 1, addr, make([]byte, wire.MaxDatagram+1)) {
			t.Error("a datagram that is too long was taken")
		}
	})
}

func TestAServiceSeesEveryFlowAtAPortOfItsOwn(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{})
	d, answers := datagrams(t, l)
	addr, _ := udpService(t, "127.0.0.1:0", func(_ []byte, from net.Addr) []byte { return []byte(from.String()) })
	seen := make(map[uint32]string)
	for range 3 {
		for flow := range uint32(10) {
			send(d, flow, addr, nil)
		}
		for range 10 {
			a := next(t, answers)
			if was := seen[a.flow]; was != "" && was != string(a.payload) {
				t.Errorf("flow %d moved from %s to %s", a.flow, was, a.payload)
			}
			seen[a.flow] = string(a.payload)
		}
	}
	d.End(3)
	send(d, 3, addr, nil)
	if a := next(t, answers); string(a.payload) == seen[3] {
		t.Error("a flow that ended kept its socket")
	}
	ports := make(map[string]bool)
	for _, p := range seen {
		ports[p] = true
	}
	if len(ports) != 10 {
		t.Errorf("10 flows have %d ports", len(ports))
	}
}

// TestAServiceOnAnotherLoopbackAddressSeesLocalhost: it may let in 127.0.0.1 only.
func TestAServiceOnAnotherLoopbackAddressSeesLocalhost(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{})
	d, answers := datagrams(t, l)
	addr, _ := udpService(t, "127.0.0.9:0", func(_ []byte, from net.Addr) []byte { return []byte(from.String()) })
	send(d, 1, addr, []byte("who am I"))
	if a := next(t, answers); !strings.HasPrefix(string(a.payload), "127.0.0.1:") {
		t.Errorf("the service sees %s%s", a.payload, a.reason)
	}
}

func TestAFlowSurvivesARestartOfItsService(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{})
	d, answers := datagrams(t, l)
	where := func(_ []byte, from net.Addr) []byte { return []byte(from.String()) }
	addr, stop := udpService(t, "127.0.0.1:0", where)
	send(d, 1, addr, nil)
	first := next(t, answers)
	// answered sends until an answer is as wanted. Late ones come in between.
	answered := func(text string, ok func(answer) bool) {
		for end := time.Now().Add(10 * time.Second); ; {
			send(d, 1, addr, []byte(text))
			if a := next(t, answers); ok(a) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("while the service is %s: no such answer", text)
			}
		}
	}
	for range 10 {
		stop()
		answered("down", func(a answer) bool { return strings.Contains(a.reason, "nothing receives at udp "+addr.String()) })
		_, stop = udpService(t, addr.String(), where)
		answered("up", func(a answer) bool { return bytes.Equal(a.payload, first.payload) })
	}
}

// TestAServiceThatAnswersFromAnotherPortIsFollowed has a service of TFTP's kind: it
// answers each first datagram from a port of its own, where it expects the rest.
func TestAServiceThatAnswersFromAnotherPortIsFollowed(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		d, answers := datagrams(t, l)
		listen := func() net.PacketConn {
			c, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		front := listen()
		to := front.LocalAddr().(*net.UDPAddr).AddrPort()
		expect := func(want string) {
			t.Helper()
			a := next(t, answers)
			for a.lost > 0 || a.reason != "" { // what was sent to nobody
				a = next(t, answers)
			}
			if string(a.payload) != want {
				t.Errorf("got %q, want %q", a.payload, want)
			}
		}
		take := func(c net.PacketConn, want string) net.Addr {
			t.Helper()
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			buf := make([]byte, 100)
			n, from, err := c.ReadFrom(buf)
			if err != nil || string(buf[:n]) != want {
				t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
			}
			return from
		}
		for range 2 { // a client may use its socket for the next file
			transfer := listen()
			send(d, 1, to, []byte("request"))
			client := take(front, "request")
			_, _ = transfer.WriteTo([]byte("block 1"), client)
			expect("block 1")
			send(d, 1, to, []byte("ack 1"))
			take(transfer, "ack 1")
			_, _ = transfer.WriteTo([]byte("block 2"), client)
			expect("block 2")
			_ = transfer.Close()
			// As a client does that gets no answer: once to a port where nobody is,
			// then again.
			send(d, 1, to, []byte("to nobody"))
			eventually(t, "the front again", func() bool {
				send(d, 1, to, []byte("again"))
				_ = front.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				_, _, err := front.ReadFrom(make([]byte, 100))
				return err == nil
			})
			for err := error(nil); err == nil; { // what came more than once
				_ = front.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				_, _, err = front.ReadFrom(make([]byte, 100))
			}
		}
		// One that has answered from where it was asked is believed from there alone.
		send(d, 2, to, []byte("hello"))
		client := take(front, "hello")
		_, _ = front.WriteTo([]byte("from the front"), client)
		expect("from the front")
		_, _ = listen().WriteTo([]byte("from a stranger"), client)
		_, _ = front.WriteTo([]byte("from the front again"), client)
		expect("from the front again")
	})
}

func TestDatagramsReachOnlyTheGuestItself(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{})
	d, answers := datagrams(t, l)
	send(d, 1, netip.MustParseAddrPort("192.0.2.1:53"), []byte("hello"))
	if a := next(t, answers); a.lost != 1 || !strings.Contains(a.reason, "not an address of this machine") {
		t.Errorf("%+v", a)
	}
}

func TestAFloodOfDatagramsDoesNotStopTCP(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		d, answers := datagrams(t, l)
		addr, _ := udpService(t, "127.0.0.1:0", same)
		c := through(t, l, service(t, echo))
		ctx, cancel := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		sent, dropped := 0, 0
		flood.Go(func() {
			for b := make([]byte, 60_000); ctx.Err() == nil; {
				if sent++; !send(d, uint32(sent%8), addr, b) {
					dropped++
					time.Sleep(50 * time.Microsecond)
				}
			}
		})
		flood.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-answers:
				case <-ctx.Done():
				}
			}
		})
		var slowest time.Duration
		for range 50 {
			began := time.Now()
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			slowest = max(slowest, time.Since(began))
		}
		cancel()
		flood.Wait()
		t.Logf("slowest round trip %v; %d of %d datagrams dropped", slowest, dropped, sent)
		if slowest > 3*time.Second {
			t.Errorf("TCP waited %v behind datagrams", slowest)
		}
	})
}

func TestALinkHasFewDatagramStreams(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{})
	addr, _ := udpService(t, "127.0.0.1:0", same)
	for range 2 {
		d, answers := datagrams(t, l)
		send(d, 1, addr, nil)
		next(t, answers)
	}
	s, err := l.Open(t.Context(), wire.UDPTarget(), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = udp.NewDatagrams().Run(t.Context(), s, udp.Handler{})
	if refused, ok := errors.AsType[*wire.AnswerError](err); !ok || refused.Status != wire.AnswerDenied {
		t.Errorf("the third: %v", err)
	}
}

// A guest may send whatever it likes on a datagram stream.
func TestGarbageEndsADatagramStreamWithAReason(t *testing.T) {
	frame := func(kind byte, body string) string {
		return string([]byte{kind, 0, 0, 0, 1, byte(len(body) >> 8), byte(len(body))}) + body
	}
	for name, garbage := range map[string]string{
		"a kind of the host's": frame(1, "\x04\x7f\x00\x00\x01\x00\x35"),
		"a required kind":      frame(0x89, ""),
		"a length too long":    "\x02\x00\x00\x00\x01\xff\xff",
		"a short report":       frame(4, "abc"),
		"a long report":        frame(4, strings.Repeat("x", 600)),
		"an end with a body":   frame(3, "x"),
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = fmt.Fprint(c, frame(2, "an answer that nobody asked for"), frame(9, "of a kind to be skipped"), garbage)
				_, _ = c.Read(make([]byte, 1))
				_ = c.Close()
			}
		}()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		replies := 0
		err = udp.NewDatagrams().Run(t.Context(), relay.TCP(c.(*net.TCPConn)), udp.Handler{
			Reply: func(uint32, []byte, int, *udp.Burst) int { replies++; return 0 },
		})
		if err == nil || replies != 1 || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v after %d replies", name, err, replies)
		}
		_ = l.Close()
	}
}
