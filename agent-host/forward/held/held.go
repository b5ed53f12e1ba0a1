// Package held keeps the listeners of a VM that were announced until a moment ago, and that a
// rule holds for some time. Which those are, and what comes of it, is not decided here.
package held

import (
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// most bounds the listeners of a VM that are held after they have gone.
const most = room.MaxBound

// Listeners are those that are held. The zero value is none. They have no lock of their own.
type Listeners struct {
	all   []listener
	timer *time.Timer // runs while there are such; nil before
}

type listener struct {
	portlist.Listener
	until time.Time
}

// Add holds a listener that has gone, if there is room.
func (h *Listeners) Add(l portlist.Listener, until time.Time) {
	if len(h.all) < most {
		h.all = append(h.all, listener{l, until})
	}
}

// On are those on some ports.
func (h *Listeners) On(p policy.Ports) (ls []portlist.Listener) {
	for _, l := range h.all {
		if p.Has(l.Proto, l.Addr.Port()) {
			ls = append(ls, l.Listener)
		}
	}
	return ls
}

// Forget forgets those whose time is over, or that are there again, and returns them.
func (h *Listeners) Forget(now time.Time, isThere func(portlist.Listener) bool) (forgotten []portlist.Listener) {
	h.all = slices.DeleteFunc(h.all, func(l listener) bool {
		over := !now.Before(l.until) || isThere(l.Listener)
		if over {
			forgotten = append(forgotten, l.Listener)
		}
		return over
	})
	return forgotten
}

// Await has a function called when the next one's time is over. It is always the same one.
func (h *Listeners) Await(now time.Time, over func()) {
	if len(h.all) == 0 {
		return
	}
	next := slices.MinFunc(h.all, func(a, b listener) int { return a.until.Compare(b.until) }).until
	if h.timer == nil {
		h.timer = time.AfterFunc(next.Sub(now), over)
		return
	}
	h.timer.Reset(next.Sub(now))
}

// Stop has the function not called any more.
func (h *Listeners) Stop() {
	if h.timer != nil {
		h.timer.Stop()
	}
}
