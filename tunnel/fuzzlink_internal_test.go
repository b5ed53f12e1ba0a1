package tunnel

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// script turns fuzz input into what a peer does, one step after the other.
type script struct{ in []byte }

func (s *script) byte() byte {
	if len(s.in) == 0 {
		return 0
	}
	b := s.in[0]
	s.in = s.in[1:]
	return b
}

// message is any message of any agent, with small numbers, so that they meet.
func (s *script) message() []byte {
	listeners := func() (ls []portlist.Listener) {
		for range s.byte() % 4 {
			ls = append(ls, portlist.Listener{
				Proto: []string{"tcp", "udp"}[s.byte()%2], Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, s.byte() % 3}), uint16(s.byte())),
			})
		}
		return ls
	}
	switch s.byte() % 14 {
	case 0:
		return wire.AppendMessage(nil, hello(Config{AgentVersion: "fuzz"}))
	case 1:
		return wire.AppendMessage(nil, &wire.SnapshotMessage{Generation: uint64(s.byte() % 4), Listeners: listeners()})
	case 2:
		return wire.AppendMessage(nil, &wire.DeltaMessage{From: uint64(s.byte() % 4), To: uint64(s.byte() % 4), Removed: listeners(), Added: listeners()})
	case 3:
		return wire.AppendMessage(nil, &wire.ScanErrorMessage{Text: string(rune('a' + s.byte()%3))})
	case 4:
		return wire.AppendMessage(nil, &wire.PingMessage{Seq: uint64(s.byte() % 4)})
	case 5:
		return wire.AppendMessage(nil, &wire.PongMessage{Seq: uint64(s.byte() % 4), Now: int64(s.byte()) << 55})
	case 6, 7:
		id := uint64(s.byte() % 4)
		if s.byte()%2 == 1 {
			id |= wire.GuestOpened
		}
		return wire.AppendMessage(nil, &wire.EndMessage{ID: id, Kind: wire.EndKind(1 + s.byte()%4), Sent: uint64(s.byte() % 8)})
	case 8:
		m := &wire.ReverseMessage{}
		if s.byte()%2 == 1 {
			m.Listeners = []wire.ReverseSpec{{ID: uint64(s.byte() % 3), Listen: wire.UnixTarget("/nowhere/s")}}
		}
		return wire.AppendMessage(nil, m)
	case 9:
		return wire.AppendMessage(nil, &wire.ReverseStateMessage{ID: uint64(s.byte() % 3), State: wire.ReverseState(s.byte() % 5)})
	case 10:
		return wire.AppendMessage(nil, &wire.PortStatesMessage{Ports: []wire.PortState{{Proto: "tcp", Port: 1 + uint16(s.byte()), Outcome: wire.PortOutcome(s.byte() % 6)}}})
	case 11:
		return wire.AppendMessage(nil, &wire.OpenURLMessage{ID: uint64(s.byte() % 3), URL: "http://localhost/", Proof: []byte{s.byte()}})
	case 12:
		return wire.AppendMessage(nil, &wire.OpenURLAnswerMessage{ID: uint64(s.byte() % 3), Outcome: wire.OpenOutcome(s.byte() % 6)})
	}
	body := make([]byte, 1+s.byte()%8) // any kind, any body
	for i := range body {
		body[i] = s.byte()
	}
	return append([]byte{0, 0, 0, byte(len(body))}, body...)
}

// play does what the script says on a session whose control stream is control, until
// it has ended.
func (s *script) play(session *yamux.Session, control *yamux.Stream) {
	streams := []*yamux.Stream{control}
	for len(s.in) > 0 && !session.IsClosed() {
		at := streams[int(s.byte())%len(streams)]
		_ = at.SetDeadline(time.Now().Add(20 * time.Millisecond))
		switch s.byte() % 8 {
		case 0, 1, 2, 3:
			_, _ = control.Write(s.message())
		case 4:
			if stream, err := session.OpenStream(); err == nil {
				streams = append(streams, stream)
			}
		case 5:
			open, err := wire.OpenRequest{ID: uint64(s.byte() % 4), Target: wire.UDPTarget()}.Append(nil)
			if s.byte()%2 == 1 {
				open, err = wire.OpenRequest{ID: uint64(s.byte() % 4), Target: wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}}.Append(nil)
			}
			if err == nil {
				_, _ = at.Write(open)
			}
		case 6:
			_, _ = at.Write(wire.AppendAnswer([]byte{}, wire.AnswerStatus(s.byte()%5), "no"))
		case 7:
			_ = at.Close()
		}
	}
}

var fuzzScripts = [][]byte{
	{0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 1, 80, 0, 0, 2, 1, 2, 1, 0, 1, 90},
	{0, 4, 1, 5, 1, 1, 0, 6, 0, 7, 0, 0, 6, 1, 0, 1, 3},
	{0, 0, 5, 0, 0, 0, 5, 1, 0, 0, 4, 1},
	{0, 0, 8, 1, 1, 0, 0, 9, 1, 2, 0, 0, 10, 3, 99, 1, 2},
}

// peersConfig is for a session that has no guard.
func peersConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive, c.LogOutput = false, io.Discard
	return c
}

// FuzzAGuestOnALink has a guest say anything in any order. The host's link goes on or
// ends, soon, and does not panic.
func FuzzAGuestOnALink(f *testing.F) {
	for _, in := range fuzzScripts {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		hostEnd, guestEnd := net.Pipe()
		session, err := yamux.Server(guestEnd, peersConfig())
		if err != nil {
			t.Fatal(err)
		}
		l, err := newLink(endpoint.Endpoint{Scheme: endpoint.SchemeSerial}, Config{}, hostEnd, handshake.Agreed{Auth: "none"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- l.Run(ctx, func(announce.Announcement) {}) }()
		control, err := session.AcceptStream()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, control) }()
		go func() { // what the host opens
			for {
				s, err := session.AcceptStream()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(io.Discard, s) }()
			}
		}()
		_ = l.SetReverse([]*announce.Reverse{{Listen: wire.UnixTarget("/nowhere/s"), State: func(wire.ReverseState, string) {}, Ended: func(error) {}, Counters: new(relay.Counters),
			Dial: func(context.Context) (relay.Conn, error) { return nil, io.ErrUnexpectedEOF }}})
		opening, stop := context.WithTimeout(ctx, 50*time.Millisecond)
		if s, err := l.Open(opening, wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}, []byte("early")); err == nil {
			defer s.Abort()
		}
		stop()
		(&script{in}).play(session, control)
		cancel()
		select {
		case <-ran:
		case <-time.After(10 * time.Second):
			t.Fatal("the link does not end")
		}
		_ = session.Close()
	})
}

// FuzzAHostOnALink is the same for a host and the guest's end.
func FuzzAHostOnALink(f *testing.F) {
	for _, in := range fuzzScripts {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		hostEnd, guestEnd := net.Pipe()
		server := &Server{Source: func() (announce.Announcement, <-chan struct{}) {
			return announce.Announcement{Generation: 1, Listeners: []portlist.Listener{{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:80")}}}, nil
		}}
		server.init()
		g := newGuestLink(server, accepting{}, handshake.Agreed{Auth: "none"}, false)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- g.run(ctx, guestEnd) }()
		session, err := yamux.Client(hostEnd, peersConfig())
		if err != nil {
			t.Fatal(err)
		}
		control, err := session.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, control) }()
		(&script{in}).play(session, control)
		cancel()
		select {
		case <-ran:
		case <-time.After(10 * time.Second):
			t.Fatal("the guest's link does not end")
		}
		_ = session.Close()
	})
}
