package policy

import (
	"cmp"
	"net/netip"
)

// ProtoUnix is the protocol of unix sockets.
const ProtoUnix = "unix"

// Key tells the forwards of a VM apart: listeners on one port that rules send
// to the same place are one, if all are what the guest calls localhost. Another
// address may be another service, and is a forward of its own.
type Key struct {
	Proto    string     // "tcp", "udp", or "unix" for a socket of the guest
	Port     uint16     // 0 for a socket
	Addr     netip.Addr // not valid for localhost, and what stays in the guest
	Socket   string     // its path
	Decision string     // tells apart what goes to different places
}

// Compare orders keys by protocol and port first.
func (k Key) Compare(o Key) int {
	if c := cmp.Compare(k.Proto, o.Proto); c != 0 {
		return c
	}
	if c := cmp.Compare(k.Port, o.Port); c != 0 {
		return c
	}
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Decision, o.Decision), cmp.Compare(k.Socket, o.Socket))
}

// Anywhere is the key of what listens in the guest, whatever its places on the host.
func (k Key) Anywhere() Key {
	k.Decision = ""
	return k
}

// Localhost is the key of the forward that comes before all others on the port.
func (k Key) Localhost() Key {
	k.Addr = netip.Addr{}
	return k
}
