package hostagent

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func TestAListenerWaitsForItsProcessOnlyWhereARuleAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []portlist.Listener
		u := &unnamed{
			asks: func(l portlist.Listener) bool { return l.Addr.Port() == 5432 },
			announce: func(all []portlist.Listener) {
				mu.Lock()
				defer mu.Unlock()
				got = all
			},
		}
		listener := func(port uint16, process string) portlist.Listener {
			return portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port), Process: process}
		}
		web, db, named := listener(8080, ""), listener(5432, ""), listener(5432, "postgres[7]")
		expect := func(what string, want ...portlist.Listener) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v", what, got)
			}
		}
		u.take([]portlist.Listener{db, web})
		expect("at once", web)
		time.Sleep(nameWait / 2)
		u.take([]portlist.Listener{named, web})
		expect("named", named, web)
		u.take([]portlist.Listener{db, web})
		expect("without its name, soon after", web)
		u.take(nil)
		u.take([]portlist.Listener{db, web})
		expect("another one", web)
		time.Sleep(nameWait)
		expect("that never gets a name", db, web)
		u.take([]portlist.Listener{web})
		expect("gone", web)
		time.Sleep(time.Minute)
		expect("for good", web)
	})
}

// What only comes is not paid for, and neither is a name that comes after it, so that no
// other port waits for it.
func TestAnAnnouncementThatChangesWhatWasThereIsPaidFor(t *testing.T) {
	u := &unnamed{asks: func(portlist.Listener) bool { return false }, announce: func([]portlist.Listener) {}}
	listener := func(port uint16) portlist.Listener {
		return portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), port)}
	}
	one, two := listener(1), listener(2)
	with := func(f func(*portlist.Listener)) portlist.Listener { l := two; f(&l); return l }
	shop := portlist.Program{Command: "node server.js"}
	for i, step := range []struct {
		two  portlist.Listener // beside one; the zero one for nothing else
		paid bool
	}{
		{portlist.Listener{}, false},
		{two, false},
		{two, false},
		{with(func(l *portlist.Listener) { l.Process, l.Program = "node[7]", shop }), false},
		{with(func(l *portlist.Listener) { l.Process, l.Program = "node[8]", shop }), true},
		{with(func(l *portlist.Listener) { l.Process = "node[8]" }), true},
		{two, true},
		{with(func(l *portlist.Listener) { l.Process, l.Ephemeral = "node[7]", true }), true},
		{with(func(l *portlist.Listener) { l.Ephemeral = true }), true},
		{with(func(l *portlist.Listener) { l.V6Only = true }), true},
		{with(func(l *portlist.Listener) { l.Interface = "eth0" }), true},
		{with(func(l *portlist.Listener) { l.Interface, l.UID = "eth0", 7 }), true},
		{listener(3), true},
		{portlist.Listener{}, true},
	} {
		all := []portlist.Listener{one}
		if step.two != (portlist.Listener{}) {
			all = append(all, step.two)
		}
		if got := u.take(all); got != step.paid {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
