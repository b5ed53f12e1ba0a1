package tunnel

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// guestSession makes a link and returns both of its ends.
func guestSession(t *testing.T) (*Link, *guestLink) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{Source: func() (announce.Announcement, <-chan struct{}) { return announce.Announcement{Generation: 1}, nil }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = server.Serve(ctx, ln); done <- struct{}{} }()
	l, err := Dial(ctx, endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: path}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = l.Run(ctx, func(announce.Announcement) {}); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	server.mu.Lock()
	g := server.links[0]
	server.mu.Unlock()
	<-g.started
	return l, g
}

// TestAGuestReachesNothingThatNoRuleNames has the guest open streams as it
// likes. None of them makes the host dial.
func TestAGuestReachesNothingThatNoRuleNames(t *testing.T) {
	l, g := guestSession(t)
	open := func(first []byte) error {
		t.Helper()
		s, err := g.session.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_ = s.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = s.Write(first)
		b, err := io.ReadAll(s)
		if len(b) > 0 && wire.AnswerStatus(b[0]) == wire.AnswerOK {
			t.Errorf("%x was taken", first)
		}
		return err
	}
	target, err := wire.OpenRequest{ID: wire.GuestOpened | 1, Target: wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:22")}}}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	named := wire.ReverseOpen{ID: wire.GuestOpened | 7, Listener: 1}.Append(nil)
	attempts := map[string][]byte{
		"a target, as the host sends it": target,
		"a listener of no rule":          wire.ReverseOpen{ID: wire.GuestOpened | 5, Listener: 99}.Append(nil),
		"an ID of the host's":            wire.ReverseOpen{ID: 5, Listener: 1}.Append(nil),
	}
	dialled := make(chan struct{}, 100)
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	err = l.SetReverse([]*announce.Reverse{{
		Listen: wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort(held.Addr().String())}},
		Dial: func(context.Context) (relay.Conn, error) {
			dialled <- struct{}{}
			return nil, io.ErrUnexpectedEOF
		},
		Ended: func(error) {}, State: func(wire.ReverseState, string) {}, Counters: new(relay.Counters),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, first := range attempts {
		if err := open(first); err != nil {
			t.Errorf("%s: %v, want to be refused", name, err)
		}
	}
	if len(dialled) > 0 {
		t.Error("the host dialled for a stream that names no rule")
	}
	if err := open(named); err != nil || len(dialled) != 1 {
		t.Errorf("a listener of a rule: %v, dialled %d times", err, len(dialled))
	}
}

// TestAGuestThatOpensAStreamUnaskedEndsItsLink: before there is a rule no agent
// opens one.
func TestAGuestThatOpensAStreamUnaskedEndsItsLink(t *testing.T) {
	l, g := guestSession(t)
	if s, err := g.session.Open(); err == nil {
		_ = s.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.ReadAll(s)
	}
	select {
	case <-l.session.CloseChan():
	case <-time.After(5 * time.Second):
		t.Error("the link goes on")
	}
}

func TestReverseListenersAreBounded(t *testing.T) {
	l, _ := guestSession(t)
	none := func(wire.ReverseState, string) {}
	many := make([]*announce.Reverse, wire.MaxReverse+1)
	for i := range many {
		many[i] = &announce.Reverse{Listen: wire.UnixTarget("/nowhere/s"), State: none}
	}
	if err := l.SetReverse(many); err == nil {
		t.Error("more than MaxReverse listeners without an error")
	}
	for _, bad := range []wire.Target{
		{}, wire.UDPTarget(), wire.UnixTarget("relative"),
		{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}},
		{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("224.0.0.1:80")}},
		{Network: "tcp", Addrs: make([]netip.AddrPort, 2)},
	} {
		if err := l.SetReverse([]*announce.Reverse{{Listen: bad, State: none}}); err == nil {
			t.Errorf("%+v was taken for a place to listen on", bad)
		}
	}
	claim := wire.AppendMessage(nil, &wire.ReverseMessage{})[4:]
	binary.BigEndian.PutUint16(claim[1:], wire.MaxReverse+1)
	if _, err := wire.DecodeMessage(claim); err == nil {
		t.Error("a message of too many listeners was taken")
	}
}
