package forward

import (
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// noteGone takes note of what is in force, would be held, and of what was announced is not, sorted, any more.
// While the guest's agent is away nobody knows what listens. It needs table.mu.
func (v *VM) noteGone(announced, removed []portlist.Listener) {
	now := time.Now()
	isThere := func(l portlist.Listener) bool { return portlist.Has(announced, l) }
	v.stale.Add(v.gone.Forget(now, isThere))
	if v.guest.Route().Link == nil {
		return
	}
	var of policy.Ports
	of.Add(removed)
	for _, f := range v.forwards.On(of) {
		if f.decision.Hold == 0 || f.held || f.expected || f.key.Proto != "tcp" || f.main.open == nil {
			continue
		}
		for _, l := range f.service.Listeners() {
			if !isThere(l) {
				v.gone.Add(l, now.Add(f.decision.Hold))
			}
		}
	}
	v.gone.Await(now, v.giveUpGone)
}

// giveUpGone has the forwards of what does not come back withdrawn.
func (v *VM) giveUpGone() {
	v.table.decideAnew(func() []*VM {
		if v.closed {
			return nil
		}
		now := time.Now()
		v.stale.Add(v.gone.Forget(now, func(portlist.Listener) bool { return false }))
		v.gone.Await(now, v.giveUpGone)
		return []*VM{v}
	})
}
