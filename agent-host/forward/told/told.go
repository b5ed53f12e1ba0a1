// Package told tells a guest what became of its ports, each once, and only what it was not told
// before. When that is worth a look, and what becomes of ports, is not decided here.
package told

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Guest is what a guest was told last. The zero value is nothing yet. One goroutine uses it at
// a time.
type Guest struct {
	last uint64 // its hash
	link *serve.Link
}

// Tell tells a guest over l about its ports, of which there may be several of one number.
func (g *Guest) Tell(l *serve.Link, all []wire.PortState) {
	ports := best(all)
	if h := hash(ports); h != g.last || l != g.link {
		g.last, g.link = h, l
		l.Tell(ports)
	}
}

// Outcome is how a guest is told of a state, for a reason. What is active is so at an address,
// which is not valid for a socket of the host.
func Outcome(state, reason string, at netip.Addr) wire.PortOutcome {
	switch {
	case state == status.Active && !at.IsUnspecified() && at != localhost4 && at != localhost6:
		return wire.PortElsewhere
	case state == status.Ignored && reason == status.Released:
		return wire.PortReleased
	}
	return map[string]wire.PortOutcome{
		status.Active: wire.PortForwarded, status.Claim: wire.PortTaken,
		status.Ignored: wire.PortKept, status.Denied: wire.PortDenied,
	}[state]
}

var (
	localhost4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	localhost6 = netip.IPv6Loopback()
)

var seed = maphash.MakeSeed()

// hash tells what a guest is told apart: the states themselves may be thousands.
func hash(ports []wire.PortState) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, p := range ports {
		maphash.WriteComparable(&h, p)
	}
	return h.Sum64()
}

// best is each port once: the best, where it is several services.
func best(all []wire.PortState) []wire.PortState {
	rank := func(p wire.PortState) int { return slices.Index(order, p.Outcome) }
	slices.SortFunc(all, func(a, b wire.PortState) int {
		if c := cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port)); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Host, b.Host))
	})
	return slices.CompactFunc(all, func(a, b wire.PortState) bool { return a.Proto == b.Proto && a.Port == b.Port })
}

// order is that of outcomes, the best first.
var order = []wire.PortOutcome{wire.PortForwarded, wire.PortElsewhere, wire.PortTaken, wire.PortDenied, wire.PortReleased, wire.PortKept}
