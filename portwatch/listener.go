package portwatch

import "net/netip"

// Listener is a socket that waits for connections (tcp) or datagrams (udp).
// It is also how a listener is written on the wire between the agents, and
// in the JSON that rum-guest-agent ports prints.
type Listener struct {
	// Proto is "tcp" or "udp"; the address family is in Addr.
	Proto string `json:"proto"`
	// Addr is the bound address as the kernel shows it; a wildcard is
	// 0.0.0.0 or ::, never an IPv4-mapped IPv6 address.
	Addr netip.AddrPort `json:"addr"`
	// Process names the owner as "name[pid]"; empty when it is not known.
	Process string `json:"process,omitempty"`
}
