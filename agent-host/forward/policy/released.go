package policy

import (
	"maps"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Place is a port of the host where a port of the guest has its forward.
type Place struct {
	Proto       string
	Guest, Host uint16
}

// Released are places that were given back to programs of the host.
type Released map[Place]bool

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
	maps.DeleteFunc(r, func(p Place, _ bool) bool {
		on := Port(p.Proto, p.Guest)
		return len(on.OfSorted(before)) == 0 && len(on.OfSorted(added)) > 0
	})
}

func (r Released) keep(d *Decision, l portlist.Listener) {
	if len(d.Host) > 0 && r[Place{l.Proto, l.Addr.Port(), d.Host[0].Port()}] {
		d.Verdict, d.Reason = status.Ignored, status.Released
	}
}
