package policy

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

const (
	// few is how many ports are decided on in a moment.
	few = 64
	// many is of how many changes no list is kept: all ports are decided on.
	many = 256
)

// Ports are some of a VM's, or all and its unix sockets. The zero value is none.
type Ports struct {
	// All says that it is all of them.
	All  bool
	some map[portKey]bool
}

// Has reports whether a port is one of them. Unix sockets are port 0 of [ProtoUnix].
func (p Ports) Has(proto string, port uint16) bool {
	return p.All || p.some[portKey{proto: proto, port: port}]
}

// of are the listeners on these ports.
func (p Ports) of(all []portlist.Listener) []portlist.Listener {
	some := make([]portlist.Listener, 0, len(all))
	for _, l := range all {
		if p.Has(l.Proto, l.Addr.Port()) {
			some = append(some, l)
		}
	}
	return some
}

// OfSorted returns the listeners on these ports, of listeners that are sorted, in a slice of
// its own. It looks through all of them for many ports only.
func (p Ports) OfSorted(all []portlist.Listener) []portlist.Listener {
	if p.All {
		return append(make([]portlist.Listener, 0, len(all)), all...)
	}
	if len(p.some) > few {
		return p.of(all)
	}
	some := []portlist.Listener{}
	for _, s := range slices.SortedFunc(maps.Keys(p.some), portKey.compare) {
		first, _ := slices.BinarySearchFunc(all, s, func(l portlist.Listener, s portKey) int {
			return cmp.Or(cmp.Compare(l.Proto, s.proto), cmp.Compare(l.Addr.Port(), s.port), 1) // before the first of them
		})
		for _, l := range all[first:] {
			if l.Proto != s.proto || l.Addr.Port() != s.port {
				break
			}
			some = append(some, l)
		}
	}
	return some
}

// Each ranges over the ports; over none if they are all.
func (p Ports) Each() iter.Seq2[string, uint16] {
	return func(yield func(string, uint16) bool) {
		for k := range p.some {
			if !yield(k.proto, k.port) {
				return
			}
		}
	}
}

// Add adds the ports of listeners.
func (p *Ports) Add(listeners []portlist.Listener) {
	if p.All = p.All || len(listeners) > many; p.All {
		p.some = nil
		return
	}
	if p.some == nil {
		p.some = make(map[portKey]bool)
	}
	for _, l := range listeners {
		p.some[portKey{proto: l.Proto, port: l.Addr.Port()}] = true
	}
}

// portKey is a port of a protocol.
type portKey struct {
	proto string
	port  uint16
}

func (p portKey) compare(o portKey) int {
	return cmp.Or(cmp.Compare(p.proto, o.proto), cmp.Compare(p.port, o.port))
}

// Port is that port alone.
func Port(proto string, port uint16) Ports {
	return Ports{some: map[portKey]bool{{proto, port}: true}}
}

// IsFew reports whether it takes no more than a moment to decide on the ports, of a VM with n.
func (p Ports) IsFew(n int) bool {
	return len(p.some) <= few && (!p.All || n <= few)
}

// Clone returns a copy that stays as it is.
func (p Ports) Clone() Ports { return Ports{All: p.All, some: maps.Clone(p.some)} }
