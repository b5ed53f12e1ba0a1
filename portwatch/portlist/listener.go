package portlist

import "net/netip"

// Listener is a socket that waits for connections (tcp) or datagrams (udp).
// It is also how a listener is written in the JSON that rum-guest-agent ports
// prints.
type Listener struct {
	// Proto is "tcp" or "udp"; the address family is in Addr.
	Proto string `json:"proto"`
	// Addr is the bound address as the kernel shows it; a wildcard is
	// 0.0.0.0 or ::, never an IPv4-mapped IPv6 address.
	Addr netip.AddrPort `json:"addr"`
	// Process names a process that holds the socket as "name[pid]"; empty when
	// it is not known.
	Process string `json:"process,omitempty"`
	// Program says more of that process, where it is known.
	Program Program `json:"-"`
	// Interface is the network interface that the socket is bound to
	// (SO_BINDTODEVICE): it takes nothing that arrives by another one. Empty for
	// a socket that takes what comes, and where that is not known.
	Interface string `json:"interface,omitempty"`
	// V6Only says that a socket on :: takes no IPv4. False where that is not
	// known.
	V6Only bool `json:"v6only,omitempty"`
	// Ephemeral says that the kernel gives this port to sockets that ask for
	// none (net.ipv4.ip_local_port_range, without ip_local_reserved_ports).
	Ephemeral bool `json:"ephemeral,omitempty"`
	// Unusable says why nobody can be connected to this socket; empty for one
	// that can be forwarded.
	Unusable string `json:"unusable,omitempty"`

	// Inode is the number that the kernel gave the socket, which no other
	// socket has at the same time, in no network namespace; 0 where it is not
	// known. UID is the user whose socket it is.
	Inode uint64 `json:"-"`
	UID   uint32 `json:"-"`
}

// Unusable says why nobody can connect or send to a socket on an address, or ""
// if somebody can. Only the machine that has the socket knows the broadcast
// addresses of its networks; they are not found here.
func Unusable(addr netip.AddrPort) string {
	ip := addr.Addr()
	switch {
	case addr.Port() == 0:
		return "no port"
	case !ip.IsValid() || ip.Is4In6() || ip.Zone() != "":
		return "not an address that a socket is listed with"
	case ip.IsMulticast():
		return "a multicast address"
	case ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}), ip == netip.AddrFrom4([4]byte{127, 255, 255, 255}):
		return "a broadcast address"
	}
	return ""
}
