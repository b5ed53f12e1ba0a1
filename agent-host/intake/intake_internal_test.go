package intake

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
		u := New(func(l portlist.Listener) bool { return l.Addr.Port() == 5432 }, func(all []portlist.Listener) {
			mu.Lock()
			defer mu.Unlock()
			got = all
		})
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
		u.Take([]portlist.Listener{db, web})
		expect("at once", web)
		time.Sleep(nameWait / 2)
		u.Take([]portlist.Listener{named, web})
		expect("named", named, web)
		u.Take([]portlist.Listener{db, web})
		expect("without its name, soon after", web)
		u.Take(nil)
		u.Take([]portlist.Listener{db, web})
		expect("another one", web)
		time.Sleep(nameWait)
		expect("that never gets a name", db, web)
		u.Take([]portlist.Listener{web})
		expect("gone", web)
		time.Sleep(time.Minute)
		expect("for good", web)
	})
}

func asksNothing(portlist.Listener) bool { return false }

// What only comes is not paid for, and neither is a name that comes after it.
func TestAnAnnouncementThatChangesWhatWasThereIsPaidFor(t *testing.T) {
	listener := func(port uint16) portlist.Listener {
		return portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), port)}
	}
	one, two := listener(1), listener(2)
	with := func(f func(*portlist.Listener)) portlist.Listener { l := two; f(&l); return l }
	shop := portlist.NewProgram("node server.js", "", "")
	synctest.Test(t, func(t *testing.T) {
		u := New(asksNothing, func([]portlist.Listener) { time.Sleep(time.Millisecond) })
		for n, step := range []struct {
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
			before := u.budget.Left()
			u.Take(all)
			if paid := before-u.budget.Left() > time.Millisecond; paid != step.paid {
				t.Errorf("step %d: %v", n, paid)
			}
			time.Sleep(time.Minute) // until all of it is there again
		}
	})
}

// A program that opens and closes ports all the time has them changed on the host now and
// then. What another one opens meanwhile is there at once.
func TestWhatOnlyComesWaitsForNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var last []portlist.Listener
		changes := 0
		u := New(asksNothing, func(all []portlist.Listener) {
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			last = all
			changes++
		})
		got := func() ([]portlist.Listener, int) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return last, changes
		}
		listener := func(port int, process string) portlist.Listener {
			return portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)), Process: process}
		}
		busy := func(n int) portlist.Listener { return listener(20_000+n, "") }
		for n := range 1000 { // 30 ms of processor time each, of which there is 3 %
			u.Take([]portlist.Listener{busy(n % 2)})
		}
		if _, n := got(); n > 100 {
			t.Errorf("%d changes", n)
		}
		web := listener(8080, "")
		u.Take([]portlist.Listener{web, busy(3)})
		if all, _ := got(); !slices.Contains(all, web) {
			t.Errorf("what has come is not there: %v", all)
		}
		named := listener(8080, "node[7]")
		u.Take([]portlist.Listener{named, busy(4)})
		if all, _ := got(); !slices.Contains(all, named) {
			t.Errorf("what has its name is not there: %v", all)
		}
		u.Take([]portlist.Listener{named})
		if all, _ := got(); slices.Equal(all, []portlist.Listener{named}) {
			t.Error("what has gone is not paid for")
		}
		time.Sleep(time.Minute)
		if all, _ := got(); !slices.Equal(all, []portlist.Listener{named}) {
			t.Errorf("in the end there is %v", all)
		}
		for n := range 100 { // others each time, none of which is paid for
			var all []portlist.Listener
			for p := range 500 {
				all = append(all, listener(1000+500*n+p, ""))
			}
			u.Take(all)
		}
		if all, _ := got(); len(all) > maxTaken {
			t.Errorf("%d listeners are taken in", len(all))
		}
		u.Take(nil)
		u.Take([]portlist.Listener{named})
		u.Forget()
		_, before := got()
		time.Sleep(time.Minute)
		if _, n := got(); n != before {
			t.Error("what was forgotten is passed on")
		}
	})
}
