package tunnel

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestALinkThatCarriesNothingLetsTheGuestSleep(t *testing.T) {
	bubble(t, func(t *testing.T) {
		hostEnd, guestEnd := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		lost := make(chan error, 2)
		server := &Server{Source: func() (announce.Announcement, <-chan struct{}) { return announce.Announcement{Generation: 1}, nil }}
		guest := newGuestLink(server, accepting{}, handshake.Agreed{}, false)
		guest.serve = func(ctx context.Context, conn net.Conn, _ wire.OpenRequest) {
			_, _ = conn.Write(wire.AppendAnswer(nil, wire.AnswerOK, ""))
			<-ctx.Done()
		}
		go func() { lost <- guest.run(ctx, guestEnd) }()
		host, err := newLink(endpoint.Endpoint{Scheme: endpoint.SchemeSerial, Path: "pipe"}, Config{}, hostEnd, handshake.Agreed{})
		if err != nil {
			t.Fatal(err)
		}
		go func() { lost <- host.Run(ctx, func(announce.Announcement) {}) }()

		asked := func() uint64 {
			before := host.pings.Asked()
			for range 600 {
				time.Sleep(100 * time.Millisecond)
				if host.Silent() {
					t.Fatal("a guest that answers is silent")
				}
			}
			return host.pings.Asked() - before
		}
		if n := asked(); n < 2 || n > 4 {
			t.Errorf("asked %d times in a minute without traffic, want 3", n)
		}
		s, err := host.Open(ctx, wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}, []byte("GET"))
		if err != nil {
			t.Fatal(err)
		}
		if n := asked(); n < 59 || n > 61 {
			t.Errorf("asked %d times in a minute with a connection, want 60", n)
		}
		_ = s.Close()
		cancel()
		<-lost
		<-lost
	})
}

func TestAGuestAnswersAHeartbeatWithItsTime(t *testing.T) {
	l := &guestLink{control: newControl(nil, nil, nil)}
	before := time.Now().UnixNano()
	if _, err := l.handle(&wire.PingMessage{Seq: 5}); err != nil {
		t.Fatal(err)
	}
	m, err := wire.DecodeMessage(l.control.queue[4:])
	pong, ok := m.(*wire.PongMessage)
	if err != nil || !ok || pong.Seq != 5 || pong.Now < before || pong.Now > time.Now().UnixNano() {
		t.Errorf("%+v, %v", m, err)
	}
}
