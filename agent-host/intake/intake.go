package intake

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// nameWait is how long a new listener is kept back until the guest has said whose it is,
// where a rule asks for that. A guest announces first and looks up the process then.
const nameWait = 50 * time.Millisecond

// changesBudget is what announcements of a VM may take of a processor, so that a guest whose
// ports come and go or change all the time does not keep this agent busy. As much again is
// done about them elsewhere, where listeners are opened and closed. Paid for are those that
// change what was there: there is an end to how much can come otherwise, and one program
// that opens and closes many ports is not to hold up another's.
var changesBudget = budget.Limits{Share: 0.03, Burst: 300 * time.Millisecond}

// maxTaken bounds what has come beside what is gone and not paid for.
const maxTaken = 2 * wire.MaxListeners

// withWhatCame counts a change three times, for those that brought what goes and its name.
const withWhatCame = 3

// Intake takes in what a guest announces.
type Intake struct {
	asks     func(portlist.Listener) bool // whether the process decides
	announce func([]portlist.Listener)
	budget   *budget.Budget

	mu     sync.Mutex
	latest []portlist.Listener // what the guest has announced last
	taken  []portlist.Listener // that, as far as it is paid for
	since  map[key]time.Time   // when those were taken in first that may be kept back
	again  *time.Timer         // nil while nothing waits
	begun  bool                // something was passed on
}

type key struct {
	proto string
	addr  netip.AddrPort
}

func keyOf(l portlist.Listener) key { return key{l.Proto, l.Addr} }

// New returns an Intake that passes listeners on to announce, which is called by one
// goroutine at a time. asks says whether it depends on a listener's process what becomes of it.
func New(asks func(portlist.Listener) bool, announce func([]portlist.Listener)) *Intake {
	return &Intake{asks: asks, announce: announce, budget: budget.New(changesBudget), since: make(map[key]time.Time)}
}

// Take takes in all that a guest announces now, sorted as by portlist.Compare.
func (i *Intake) Take(listeners []portlist.Listener) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.latest = listeners
	i.settle()
}

// Forget forgets what was announced, and passes nothing on any more.
func (i *Intake) Forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.latest, i.taken, i.begun = nil, nil, false
	clear(i.since)
	i.stop()
}

func (i *Intake) stop() {
	if i.again != nil {
		i.again.Stop()
		i.again = nil
	}
}

// settle passes on what waits neither for its name nor to be paid for, if that is different
// from before, and comes again for the rest.
func (i *Intake) settle() {
	i.stop()
	now := time.Now()
	next, paid := i.latest, true
	added, removed := portlist.Diff(i.taken, next)
	changed := len(removed) > 0 || slices.ContainsFunc(added, i.changes)
	different := !i.begun || len(added)+len(removed) > 0
	wait := time.Duration(0)
	if changed {
		if wait = max(i.budget.Pause(), 0); wait > 0 {
			paid = false
			if added = slices.DeleteFunc(added, i.changes); len(i.taken)+len(added) > maxTaken {
				added = nil
			}
			next, different = i.with(added), len(added) > 0
		}
	}
	for _, l := range added {
		if l.Process == "" && !portlist.Has(i.taken, l) && i.asks(l) {
			i.since[keyOf(l)] = now
		}
	}
	if paid {
		for _, l := range removed {
			delete(i.since, keyOf(l))
		}
	}
	i.taken, i.begun = next, true
	passed, first, named := i.named(now)
	if different || named {
		i.announce(passed)
	}
	if changed && paid {
		i.budget.Spend(withWhatCame * time.Since(now))
	}
	if first > 0 && (wait == 0 || first < wait) {
		wait = first
	}
	if wait > 0 {
		i.again = time.AfterFunc(wait, func() {
			i.mu.Lock()
			defer i.mu.Unlock()
			if i.again != nil { // or it was stopped too late
				i.settle()
			}
		})
	}
}

// changes reports whether a listener is not any more as it was. What has come is not, nor
// what has its name now.
func (i *Intake) changes(l portlist.Listener) bool {
	at, known := slices.BinarySearchFunc(i.taken, l, portlist.Compare)
	return known && !isNamed(i.taken[at], l)
}

// isNamed reports whether a listener is the same as before, but that it is known whose it is.
func isNamed(before, now portlist.Listener) bool {
	if before.Process != "" {
		return false
	}
	before.Process, before.Program = now.Process, now.Program
	return before == now
}

// with is what was taken in with what has come, and with names that have.
func (i *Intake) with(come []portlist.Listener) []portlist.Listener {
	if len(come) == 0 {
		return i.taken // as when a port of thousands comes and goes
	}
	next, rest := make([]portlist.Listener, 0, len(i.taken)+len(come)), i.taken
	for _, l := range come { // in order
		at, known := slices.BinarySearchFunc(rest, l, portlist.Compare)
		next = append(append(next, rest[:at]...), l)
		if known {
			at++
		}
		rest = rest[at:]
	}
	return append(next, rest...)
}

// named is what was taken in without the listeners that wait for their name, how long the
// first of these waits, and whether one does not wait any more.
func (i *Intake) named(now time.Time) (passed []portlist.Listener, wait time.Duration, more bool) {
	if len(i.since) == 0 {
		return i.taken, 0, false
	}
	passed = make([]portlist.Listener, 0, len(i.taken))
	for _, l := range i.taken {
		since, may := i.since[keyOf(l)]
		left := nameWait - now.Sub(since)
		switch {
		case may && left <= 0:
			delete(i.since, keyOf(l))
			more = true
		case may && l.Process == "" && i.asks(l):
			if wait == 0 || left < wait {
				wait = left
			}
			continue
		}
		passed = append(passed, l)
	}
	return passed, wait, more
}
