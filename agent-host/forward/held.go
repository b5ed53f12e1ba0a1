package forward

import (
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// maxGone bounds the listeners of a VM that are held after they have gone.
const maxGone = room.MaxBound

// gone is a listener that was announced until a moment ago, and that a rule holds.
type gone struct {
	portlist.Listener
	until time.Time
}

// noteGone takes note of what is in force, would be held, and is not announced, sorted, any more.
// While the guest's agent is away nobody knows what listens. It needs table.mu.
func (v *VM) noteGone(announced []portlist.Listener) {
	now := time.Now()
	isThere := func(l portlist.Listener) bool {
		_, there := slices.BinarySearchFunc(announced, l, portlist.Compare)
		return there
	}
	v.forgetGone(func(g gone) bool { return isThere(g.Listener) || !now.Before(g.until) })
	if v.guest.Route().Link == nil {
		return
	}
	for _, f := range v.forwards {
		if f.decision.Hold == 0 || f.held || f.expected || f.key.Proto != "tcp" || f.main.open == nil {
			continue
		}
		for _, l := range f.service.Listeners() {
			if !isThere(l) && len(v.gone) < maxGone {
				v.gone = append(v.gone, gone{l, now.Add(f.decision.Hold)})
			}
		}
	}
	v.awaitGone(now)
}

// goneOnes are the listeners on some ports that may still be held.
func (v *VM) goneOnes(p policy.Ports) (ls []portlist.Listener) {
	for _, g := range v.gone {
		if p.Has(g.Proto, g.Addr.Port()) {
			ls = append(ls, g.Listener)
		}
	}
	return ls
}

// forgetGone has what is not held any more decided on again. It needs table.mu.
func (v *VM) forgetGone(over func(gone) bool) {
	v.gone = slices.DeleteFunc(v.gone, func(g gone) bool {
		if !over(g) {
			return false
		}
		v.stale.Add([]portlist.Listener{g.Listener})
		return true
	})
}

// awaitGone has the forwards of what does not come back withdrawn. It needs table.mu.
func (v *VM) awaitGone(now time.Time) {
	if len(v.gone) == 0 {
		return
	}
	next := slices.MinFunc(v.gone, func(a, b gone) int { return a.until.Compare(b.until) }).until
	if v.goneTimer == nil {
		v.goneTimer = time.AfterFunc(next.Sub(now), v.giveUpGone)
		return
	}
	v.goneTimer.Reset(next.Sub(now))
}

func (v *VM) giveUpGone() {
	v.table.decideAnew(func() []*VM {
		if v.closed {
			return nil
		}
		now := time.Now()
		v.forgetGone(func(g gone) bool { return !now.Before(g.until) })
		v.awaitGone(now)
		return []*VM{v}
	})
}
