package forward

import (
	"net"
	"net/netip"
	"slices"
)

// canGo reports whether this host may lose an address: 127/8 it always has, as long
// as it has any.
func canGo(h hostAddr) bool {
	ip := h.addr.Addr()
	return h.path == "" && !ip.IsUnspecified() && !(ip.Is4() && ip.IsLoopback())
}

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
		if !hasAddress(ip) {
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
		if !canGo(h) || !gone[h.addr.Addr()] {
			continue
		}
		if b.canDoWithout(h) && len(b.missing()) < len(b.wanted)-1 {
			l := &b.open.listeners[slices.Index(b.wanted, h)]
			t.closeAll(*l)
			*l = listener{}
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
func (b *binding) canDoWithout(h hostAddr) bool {
	return h.addr.Addr().Is6() && len(b.wanted) > 1
}

// hasAddress reports whether this host has an address, as far as it says.
func hasAddress(ip netip.Addr) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return !noSuchAddress(err)
	}
	_ = c.Close()
	return true
}
