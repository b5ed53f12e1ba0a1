package portwatch

import (
	"net"
	"net/netip"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// broadcasts knows which addresses are those of all machines of a network here.
// The kernel lets UDP sockets be bound to them, and nobody can send there without
// reaching others too. An answer is kept for as long as some socket has the address.
type broadcasts map[netip.Addr]bool

// unusable is Unusable with this machine's networks.
func (b *broadcasts) unusable(sockets []socket) map[netip.AddrPort]string {
	known := make(broadcasts)
	why := make(map[netip.AddrPort]string)
	var networks []netip.Prefix
	for _, s := range sockets {
		if reason := portlist.Unusable(s.addr); reason != "" {
			why[s.addr] = reason
			continue
		}
		ip := s.addr.Addr()
		if s.proto != "udp" || !ip.Is4() || ip.IsLoopback() || ip.IsUnspecified() {
			continue
		}
		is, seen := (*b)[ip]
		if !seen {
			if networks == nil {
				networks = ownNetworks()
			}
			is = isBroadcast(networks, ip)
		}
		known[ip] = is
		if is {
			why[s.addr] = "a broadcast address"
		}
	}
	*b = known
	return why
}

// ownNetworks are the IPv4 addresses of this machine with their networks.
func ownNetworks() []netip.Prefix {
	all := []netip.Prefix{}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return all // nothing is known to be one then
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			all = append(all, p)
		}
	}
	return all
}

// isBroadcast reports whether ip is the last address of a network that has one,
// and not an address of this machine besides.
func isBroadcast(networks []netip.Prefix, ip netip.Addr) bool {
	last := false
	for _, p := range networks {
		if p.Addr() == ip {
			return false
		}
		// Networks of two and of one address have none (RFC 3021).
		if p.Bits() <= 30 && p.Contains(ip) && !p.Masked().Contains(ip.Next()) {
			last = true
		}
	}
	return last
}
