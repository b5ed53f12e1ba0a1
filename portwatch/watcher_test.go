package portwatch_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// fakeScan is a scan whose results a test sets.
type fakeScan struct {
	mu    sync.Mutex
	now   []portlist.Listener
	err   error
	once  []portlist.Listener // returned by the next scan only
	takes time.Duration
	count int
}

func (f *fakeScan) set(err error, now ...portlist.Listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now, f.err = now, err
}

func (f *fakeScan) scan() ([]portlist.Listener, error) {
	time.Sleep(f.takes)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.once != nil {
		now := f.once
		f.once = nil
		return now, nil
	}
	if f.err != nil {
		return nil, f.err
	}
	return slices.Clone(f.now), nil
}

// watch runs a Watcher until the test ends, inside a synctest bubble.
func watch(t *testing.T, f *fakeScan) *portwatch.Watcher {
	w := portwatch.NewWatcher(f.scan, 0)
	run(t, w)
	synctest.Wait()
	return w
}

var (
	web = listener("tcp", "127.0.0.1:80")
	db  = listener("tcp", "127.0.0.1:5432")
)

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func expect(t *testing.T, w *portwatch.Watcher, generation uint64, err error, listeners ...portlist.Listener) <-chan struct{} {
	t.Helper()
	state, changed := w.State()
	if state.Generation != generation || state.Err != err || !slices.Equal(state.Listeners, listeners) {
		t.Errorf("got %+v; want generation %d, error %v, %v", state, generation, err, listeners)
	}
	return changed
}

func TestFollowersHearOfEachChangeWithinOneInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeScan{}
		before, first := portwatch.NewWatcher(f.scan, 0).State()
		if before.Generation != 0 || closed(first) {
			t.Errorf("before the first scan: %+v", before)
		}
		w := watch(t, f)
		changed := expect(t, w, 1, nil) // an empty list is a result too
		time.Sleep(time.Second)
		if closed(changed) {
			t.Error("told of a change that was none")
		}
		f.set(nil, web)
		start := time.Now()
		<-changed
		if waited := time.Since(start); waited > portwatch.DefaultInterval {
			t.Errorf("told after %v", waited)
		}
		changed = expect(t, w, 2, nil, web)
		f.set(nil)
		<-changed
		expect(t, w, 3, nil)
	})
}

func TestASlowFollowerSkipsToTheLatestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeScan{}
		w := watch(t, f)
		changed := expect(t, w, 1, nil)
		time.Sleep(portwatch.DefaultInterval / 2) // between two scans
		for range 10 {
			f.set(nil, web)
			time.Sleep(portwatch.DefaultInterval)
			f.set(nil)
			time.Sleep(portwatch.DefaultInterval)
		}
		f.set(nil, db)
		time.Sleep(portwatch.DefaultInterval)
		<-changed
		changed = expect(t, w, 22, nil, db)
		time.Sleep(time.Second)
		if closed(changed) {
			t.Error("old changes were queued")
		}
	})
}

func TestAFailingScanKeepsTheListenersAndShowsTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeScan{now: []portlist.Listener{web, db}}
		w := watch(t, f)
		changed := expect(t, w, 1, nil, web, db)
		broken := errors.New("broken")
		f.set(broken)
		<-changed
		changed = expect(t, w, 1, broken, web, db)
		worse := errors.New("worse")
		f.set(worse)
		time.Sleep(time.Second)
		if closed(changed) {
			t.Error("told again of a failure that goes on")
		}
		expect(t, w, 1, worse, web, db)
		f.set(nil, web, db)
		<-changed
		changed = expect(t, w, 1, nil, web, db)
		f.set(nil, web)
		<-changed
		expect(t, w, 2, nil, web)
	})
}

func TestAListenerMissingFromOneScanIsNotGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeScan{now: []portlist.Listener{web, db}}
		w := watch(t, f)
		changed := expect(t, w, 1, nil, web, db)
		f.mu.Lock()
		f.once = []portlist.Listener{db}
		f.mu.Unlock()
		time.Sleep(time.Second)
		if closed(changed) {
			t.Error("a row that was skipped once is taken for a closed port")
		}
		expect(t, w, 1, nil, web, db)
	})
}

// scans counts the scans in some time, each of which takes as long and uses as
// much CPU time as said.
func scans(t *testing.T, span, takes, uses time.Duration) (count int) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeScan{takes: takes}
		w := portwatch.NewWatcher(f.scan, 0)
		w.SetCPUTime(func() time.Duration {
			f.mu.Lock()
			defer f.mu.Unlock()
			return time.Duration(f.count) * uses
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(span)
		cancel()
		<-done
		f.mu.Lock()
		defer f.mu.Unlock()
		count = f.count
	})
	return count
}

func TestScansThatAreMuchWorkUseATenthOfACPU(t *testing.T) {
	if n := scans(t, 10*time.Second, 50*time.Millisecond, 50*time.Millisecond); n < 19 || n > 21 {
		t.Errorf("%d scans of 50 ms in 10 s, want 20", n)
	}
}

func TestAScanThatHadToWaitIsNotFollowedByALongPause(t *testing.T) {
	// 600 ms are stolen each time: 0.6 s and the next scan at once.
	if n := scans(t, 60*time.Second, 600*time.Millisecond, time.Millisecond); n < 95 {
		t.Errorf("%d scans in a minute, want 100", n)
	}
	// However much work it is, the next one is a second later.
	if n := scans(t, 60*time.Second, 2*time.Second, 2*time.Second); n < 19 {
		t.Errorf("%d scans in a minute, want 20", n)
	}
}

func TestARealPortReachesAFollower(t *testing.T) {
	var s portwatch.Scanner
	defer s.Close()
	w := portwatch.NewWatcher(s.Scan, 10*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	defer running.Wait()
	defer cancel()

	wait := func(want bool, l portlist.Listener) {
		t.Helper()
		for {
			state, changed := w.State()
			if state.Err != nil {
				t.Fatal(state.Err)
			}
			same := func(o portlist.Listener) bool {
				return o.Proto == l.Proto && o.Addr == l.Addr && o.Process == l.Process
			}
			if state.Generation > 0 && slices.ContainsFunc(state.Listeners, same) == want {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatalf("waited in vain for %v to be listening: %v", l, want)
			}
		}
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l := portlist.Listener{Proto: "tcp", Addr: unmapped(ln.Addr().String()), Process: self()}
	wait(true, l)
	ln.Close()
	wait(false, l)
}
