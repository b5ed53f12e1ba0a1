package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Candidates are the addresses to try in the guest, the best first: those of the
// address family that the client used. Servers know their clients by it: what
// comes from 127.0.0.1 on the host comes from 127.0.0.1 in the guest.
//
// A socket on :: takes both families, unless it says otherwise.
func Candidates(guest []portlist.Listener, clientIs4 bool) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(guest)+1)
	var both *portlist.Listener
	for i, l := range guest {
		out = append(out, l.Addr)
		if l.Addr.Addr() == netip.IPv6Unspecified() && !l.V6Only {
			both = &guest[i]
		}
	}
	if both != nil && !slices.ContainsFunc(out, func(a netip.AddrPort) bool { return a.Addr().Is4() }) {
		out = append(out, netip.AddrPortFrom(loopback4, both.Addr.Port()))
	}
	slices.SortStableFunc(out, func(a, b netip.AddrPort) int {
		switch {
		case a.Addr().Is4() == b.Addr().Is4():
			return 0
		case a.Addr().Is4() == clientIs4:
			return -1
		}
		return 1
	})
	return out[:min(len(out), wire.MaxTargetAddrs)]
}

// OnBridge tells why none of the listeners of a guest is reached at its bridge address; nil
// if one is.
func OnBridge(guest []portlist.Listener, bridge netip.Addr) error {
	addrs := make([]netip.AddrPort, len(guest))
	for i, l := range guest {
		if reachedAt(l, bridge) {
			return nil
		}
		addrs[i] = l.Addr
	}
	return fmt.Errorf("the guest listens only on %v, which cannot be reached over the bridge", addrs)
}

func reachedAt(l portlist.Listener, bridge netip.Addr) bool {
	a := l.Addr.Addr()
	return a == bridge || a.IsUnspecified() && (a.Is4() == bridge.Is4() || a.Is6() && !l.V6Only)
}

// OnInterface reports whether a listener is bound to a network interface that
// connections of the guest's agent do not come by: they come by loopback, whatever
// address they go to.
func OnInterface(l portlist.Listener) bool { return l.Interface != "" && l.Interface != "lo" }

// BridgeOnly reports whether the guest's agent reaches none of the listeners.
func BridgeOnly(guest []portlist.Listener) bool {
	return len(guest) > 0 && !slices.ContainsFunc(guest, func(l portlist.Listener) bool { return !OnInterface(l) })
}

// Reach is what ways into a guest there are beside its agent's.
type Reach struct {
	// Bridge is the address at which the host reaches the VM without an agent; the zero
	// Addr while none is known.
	Bridge netip.Addr
	// Gone says that the link to the agent is lost, and not expected back soon.
	Gone bool
}

// unreached says why nothing gets to a listener in the guest; "" if something does.
func (r Reach) unreached(l portlist.Listener) string {
	bridge := r.Bridge
	switch {
	case r.Gone && bridge.IsValid() && !reachedAt(l, bridge):
		return fmt.Sprintf("there is no link to the guest agent, and %v is not reached at the bridge address %v", l.Addr, bridge)
	case !OnInterface(l):
		return ""
	case !bridge.IsValid():
		return fmt.Sprintf("bound to %s in the guest, and no bridge address is known: give one with bridge=IP, or bind it to no interface", l.Interface)
	case !reachedAt(l, bridge):
		return fmt.Sprintf("bound to %s in the guest, and %v is not reached at the bridge address %v: give another with bridge=IP, or bind it to no interface",
			l.Interface, l.Addr, bridge)
	}
	return ""
}
