package hostagent

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// nameWait is how long a new listener is kept back until the guest has said whose it is,
// where a rule asks for that. A guest announces first and looks up the process then.
const nameWait = 50 * time.Millisecond

// unnamed keeps listeners back whose process decides what becomes of them and is not
// known yet, for nameWait.
type unnamed struct {
	asks     func(portlist.Listener) bool // whether the process decides
	announce func([]portlist.Listener)

	mu     sync.Mutex
	latest []portlist.Listener
	since  map[unnamedKey]time.Time // when those were announced first that may be kept back
	again  *time.Timer              // nil while none is kept back
}

type unnamedKey struct {
	proto string
	addr  netip.AddrPort
}

func unnamedKeyOf(l portlist.Listener) unnamedKey { return unnamedKey{l.Proto, l.Addr} }

// take passes on what a guest announces, which is sorted, and reports whether anything is
// not any more as it was. What has come is not, nor what has its name now.
func (u *unnamed) take(listeners []portlist.Listener) (changed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if u.since == nil {
		u.since = make(map[unnamedKey]time.Time)
	}
	added, removed := portlist.Diff(u.latest, listeners)
	changed = len(removed) > 0
	for _, l := range removed {
		delete(u.since, unnamedKeyOf(l))
	}
	for _, l := range added {
		if i, known := slices.BinarySearchFunc(u.latest, l, portlist.Compare); known {
			changed = changed || !named(u.latest[i], l)
		} else if l.Process == "" && u.asks(l) {
			u.since[unnamedKeyOf(l)] = now
		}
	}
	u.latest = listeners
	u.pass(now)
	return changed
}

// named reports whether a listener is the same as before, but that it is known whose it is.
func named(before, now portlist.Listener) bool {
	if before.Process != "" {
		return false
	}
	before.Process, before.Program = now.Process, now.Program
	return before == now
}

// pass announces what need not be kept back any longer, and comes again for the rest.
func (u *unnamed) pass(now time.Time) {
	if u.again != nil {
		u.again.Stop()
		u.again = nil
	}
	maps.DeleteFunc(u.since, func(_ unnamedKey, since time.Time) bool { return now.Sub(since) >= nameWait })
	if len(u.since) == 0 {
		u.announce(u.latest)
		return
	}
	var longest time.Duration
	u.announce(slices.DeleteFunc(slices.Clone(u.latest), func(l portlist.Listener) bool {
		since, may := u.since[unnamedKeyOf(l)]
		if !may || l.Process != "" || !u.asks(l) {
			return false
		}
		longest = max(longest, nameWait-now.Sub(since))
		return true
	}))
	if longest > 0 {
		u.again = time.AfterFunc(longest, func() {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.pass(time.Now())
		})
	}
}
