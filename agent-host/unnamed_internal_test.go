package hostagent

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/portwatch"
)

func TestAListenerWaitsForItsProcessOnlyWhereARuleAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []portwatch.Listener
		u := &unnamed{
			asks: func(l portwatch.Listener) bool { return l.Addr.Port() == 5432 },
			announce: func(all []portwatch.Listener) {
				mu.Lock()
				defer mu.Unlock()
				got = all
			},
		}
		listener := func(port uint16, process string) portwatch.Listener {
			return portwatch.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port), Process: process}
		}
		web, db, named := listener(8080, ""), listener(5432, ""), listener(5432, "postgres[7]")
		expect := func(what string, want ...portwatch.Listener) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v", what, got)
			}
		}
		u.take([]portwatch.Listener{db, web})
		expect("at once", web)
		time.Sleep(nameWait / 2)
		u.take([]portwatch.Listener{named, web})
		expect("named", named, web)
		u.take([]portwatch.Listener{db, web})
		expect("without its name, soon after", web)
		u.take(nil)
		u.take([]portwatch.Listener{db, web})
		expect("another one", web)
		time.Sleep(nameWait)
		expect("that never gets a name", db, web)
		u.take([]portwatch.Listener{web})
		expect("gone", web)
		time.Sleep(time.Minute)
		expect("for good", web)
	})
}

// What only comes is not paid for, so that no other port waits for it.
func TestAnAnnouncementThatTakesNothingAwayIsToldApart(t *testing.T) {
	u := &unnamed{asks: func(portwatch.Listener) bool { return false }, announce: func([]portwatch.Listener) {}}
	listener := func(port uint16) portwatch.Listener {
		return portwatch.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port)}
	}
	one, two, three := listener(1), listener(2), listener(3)
	for i, step := range []struct {
		all   []portwatch.Listener
		fewer bool
	}{
		{[]portwatch.Listener{one}, false},
		{[]portwatch.Listener{one, two}, false},
		{[]portwatch.Listener{one, three}, true},
		{[]portwatch.Listener{one, three}, false},
		{nil, true},
	} {
		if got := u.take(step.all); got != step.fewer {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
