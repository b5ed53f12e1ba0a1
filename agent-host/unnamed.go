package hostagent

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/portwatch"
)

// nameWait is how long a new listener is kept back until the guest has said whose it is,
// where a rule asks for that. A guest announces first and looks up the process then.
const nameWait = 50 * time.Millisecond

// unnamed keeps listeners back whose process decides what becomes of them and is not
// known yet, for nameWait.
type unnamed struct {
	asks     func(portwatch.Listener) bool // whether the process decides
	announce func([]portwatch.Listener)

	mu     sync.Mutex
	latest []portwatch.Listener
	since  map[unnamedKey]time.Time // when each was announced first
	again  *time.Timer              // nil while none is kept back
}

type unnamedKey struct {
	proto string
	addr  netip.AddrPort
}

// take passes on what a guest announces, and reports whether something that was there
// is not any more.
func (u *unnamed) take(listeners []portwatch.Listener) (fewer bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	since, now, kept := make(map[unnamedKey]time.Time, len(listeners)), time.Now(), 0
	for _, l := range listeners {
		k := unnamedKey{l.Proto, l.Addr}
		since[k] = now
		if was, ok := u.since[k]; ok {
			since[k] = was
			kept++
		}
	}
	fewer = kept < len(u.since)
	u.latest, u.since = listeners, since
	u.pass(now)
	return fewer
}

// pass announces what need not be kept back any longer, and comes again for the rest.
func (u *unnamed) pass(now time.Time) {
	if u.again != nil {
		u.again.Stop()
		u.again = nil
	}
	var longest time.Duration
	u.announce(slices.DeleteFunc(slices.Clone(u.latest), func(l portwatch.Listener) bool {
		left := nameWait - now.Sub(u.since[unnamedKey{l.Proto, l.Addr}])
		if l.Process != "" || left <= 0 || !u.asks(l) {
			return false
		}
		longest = max(longest, left)
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
