package forward

import (
	"net/netip"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/portwatch"
)

// hostAddr is where something listens on the host: an address of a protocol, or
// the path of a unix socket.
type hostAddr struct {
	proto string
	addr  netip.AddrPort
	path  string
}

func (h hostAddr) String() string {
	if h.proto == policy.ProtoUnix {
		return h.path
	}
	return h.addr.String()
}

// ruled are the host addresses of a forward, in the order of its rule.
func (f *forward) ruled() []hostAddr {
	if f.decision.HostSocket != "" {
		return []hostAddr{{proto: policy.ProtoUnix, path: f.decision.HostSocket}}
	}
	proto := f.key.Proto
	if proto == policy.ProtoUnix {
		proto = "tcp" // a socket in the guest, a port here
	}
	out := make([]hostAddr, len(f.decision.Host))
	for i, a := range f.decision.Host {
		out[i] = hostAddr{proto: proto, addr: a}
	}
	return out
}

// holderOf names who has an address that could not be bound.
func (t *Table) holderOf(h hostAddr) string {
	if h.proto == policy.ProtoUnix {
		return portwatch.SocketHolder(h.path)
	}
	return t.cfg.Holder(h.proto, h.addr)
}
