package forward

import (
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
)

// goneAddresses are those with something bound that this host has no more.
func (t *Table) goneAddresses() map[netip.Addr]bool {
	t.mu.Lock()
	ask := make([]netip.Addr, 0, len(t.losable))
	for ip := range t.losable {
		ask = append(ask, ip)
	}
	t.mu.Unlock()
	gone := make(map[netip.Addr]bool)
	for _, ip := range ask {
		if !host.HasAddress(ip) {
			gone[ip] = true
			t.log.Warn("this host has lost an address", "address", ip)
		}
	}
	return gone
}

// lose takes from bindings what has gone, for one turn, and makes them what they
// would be if they had never had it. It reports whether there is more to do.
func (t *Table) lose(gone map[netip.Addr]bool, u turn) (more bool) {
	for h, b := range t.bound {
		if !host.CanGo(h) || !gone[h.Addr.Addr()] {
			continue
		}
		if b.canDoWithout(h) && len(b.missing()) < len(b.wanted)-1 {
			l := &b.open.listeners[slices.Index(b.wanted, h)]
			t.host.CloseAll(*l)
			*l = host.Listener{}
			t.vacate(h)
			t.awaitMissing(b)
		} else {
			t.waitAgain(b, noAddress(h))
		}
		if u.over() {
			return true
		}
	}
	return false
}

// canDoWithout reports whether a binding is open while this host lacks one of its
// addresses. On a host without IPv6, localhost is 127.0.0.1 alone, and everything
// is IPv4, until it has IPv6 again.
func (b *binding) canDoWithout(h host.Addr) bool {
	return h.Addr.Addr().Is6() && len(b.wanted) > 1
}
