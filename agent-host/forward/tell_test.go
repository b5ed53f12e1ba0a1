package forward_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// awaitTold waits until a guest is told that its ports are these.
func awaitTold(t *testing.T, said <-chan []wire.PortState, want ...wire.PortState) {
	t.Helper()
	slices.SortFunc(want, func(a, b wire.PortState) int { return int(a.Port) - int(b.Port) })
	var last []wire.PortState
	for {
		select {
		case last = <-said:
			if slices.Equal(last, want) {
				return
			}
		case <-time.After(patience):
			t.Fatalf("the guest was told %v, want %v", last, want)
		}
	}
}

func TestAGuestIsToldWhatBecameOfItsPorts(t *testing.T) {
	open, moved, taken, kept, static, elsewhere := ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t)
	to := ownnet.FreePort(t)
	rules := func(_ string, l portlist.Listener) policy.Decision {
		port := l.Addr.Port()
		switch port {
		case kept:
			return policy.Decision{Verdict: status.Ignored, Reason: "ignored by rum.toml:1", Rule: "rum.toml:1"}
		case elsewhere:
			return policy.Decision{Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), to)}}
		case moved:
			port = to
		}
		return policy.Decision{Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}}
	}
	table := newTable(t, forward.Config{
		Rules:  asStatic(rules),
		Static: func(string) []portlist.Listener { return listeners(static, "0.0.0.0") },
	})
	vm := table.Add("dev")
	holder, err := net.Listen("tcp", addr("127.0.0.1", taken))
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	link := linkTo("127.0.0.2:1")
	said := make(chan []wire.PortState, 100)
	link.Tell = func(ports []wire.PortState) { said <- ports }
	vm.SetLink(link)

	all := slices.Concat(listeners(open, "0.0.0.0"), listeners(moved, "127.0.0.1"), listeners(taken, "::"), listeners(kept, "0.0.0.0"))
	vm.Announce(all)
	is := func(port uint16, outcome wire.PortOutcome, host uint16) wire.PortState {
		return wire.PortState{Proto: "tcp", Port: port, Outcome: outcome, Host: host}
	}
	awaitTold(t, said, is(open, wire.PortForwarded, open), is(moved, wire.PortForwarded, to), is(taken, wire.PortTaken, taken), is(kept, wire.PortKept, 0))

	// The claim is bound once its holder is away, and a static port is one when it is there.
	holder.Close()
	vm.Announce(append(all[1:], listeners(static, "0.0.0.0")...))
	awaitTold(t, said, is(moved, wire.PortForwarded, to), is(taken, wire.PortForwarded, taken), is(kept, wire.PortKept, 0), is(static, wire.PortForwarded, static))

	// Another link, whose guest agent may be another, is told all of it.
	link = linkTo("127.0.0.2:1")
	again := make(chan []wire.PortState, 100)
	link.Tell = func(ports []wire.PortState) { again <- ports }
	vm.SetLink(link)
	awaitTold(t, again, is(moved, wire.PortForwarded, to), is(taken, wire.PortForwarded, taken), is(kept, wire.PortKept, 0), is(static, wire.PortForwarded, static))
	select {
	case ports := <-again:
		t.Errorf("told %v although nothing has changed", ports)
	case <-time.After(3 * 100 * time.Millisecond):
	}

	// What is at another address than localhost is not said to be there, and no rule keeps what was given back.
	vm.Announce(slices.Concat(listeners(elsewhere, "0.0.0.0"), listeners(open, "0.0.0.0")))
	awaitTold(t, again, is(elsewhere, wire.PortElsewhere, to), is(open, wire.PortForwarded, open))
	table.Release("dev", "tcp", open)
	awaitTold(t, again, is(elsewhere, wire.PortElsewhere, to), is(open, wire.PortReleased, open))
}
