package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Place is a port of the host where a rule puts a port of the guest.
type Place struct {
	Proto       string
	Guest, Host uint16
}

// Released are places that were given back to programs of the host, with the addresses that
// those were: others than the rule's, where it took the next free port.
type Released map[Place][]netip.AddrPort

// Add gives back the addresses of a forward.
func (r *Released) Add(k Key, d Decision, addrs []netip.AddrPort) {
	if *r == nil {
		*r = make(Released)
	}
	(*r)[Place{k.Proto, k.Port, d.Host[0].Port()}] = addrs
}

// Without returns the policy under which what goes to released places stays in the guest.
func (p Policy) Without(r Released) Policy {
	if len(r) == 0 {
		return p
	}
	rules := p.rules
	p.rules = func(vm string, l portlist.Listener) Decision {
		d := rules(vm, l)
		r.keep(&d, l)
		d.Also = slices.Clone(d.Also)
		for i := range d.Also {
			r.keep(&d.Also[i], l)
		}
		return d
	}
	return p
}

// End ends the releases of ports on which nothing listened before, and something does now. The
// listeners are sorted.
func (r Released) End(before, added []portlist.Listener) {
	maps.DeleteFunc(r, func(p Place, _ []netip.AddrPort) bool {
		on := Port(p.Proto, p.Guest)
		return len(on.OfSorted(before)) == 0 && len(on.OfSorted(added)) > 0
	})
}

func (r Released) keep(d *Decision, l portlist.Listener) {
	if len(d.Host) == 0 {
		return
	}
	if addrs, ok := r[Place{l.Proto, l.Addr.Port(), d.Host[0].Port()}]; ok {
		d.Verdict, d.Reason, d.Host = status.Ignored, status.Released, addrs
	}
}
