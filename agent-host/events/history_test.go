package events

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errEnough = errors.New("enough")

// follow returns the first n events after a cursor.
func follow(t *testing.T, h *History, cursor uint64, n int) (all []Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := h.Follow(ctx, cursor, func(events []Event) error {
		if all = append(all, events...); len(all) >= n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("%d events of %d: %v", len(all), n, err)
	}
	return all
}

func TestAFollowerGetsThePastAndThenWhatHappensInOrder(t *testing.T) {
	h := New()
	for i := range 3 {
		h.Publish(Event{Kind: Stopped, VM: fmt.Sprint(i % 2), Port: uint16(i)})
	}
	before := h.Now() - 3
	got := make(chan Event)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Follow(ctx, before, func(events []Event) error {
			for _, e := range events {
				got <- e
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	for i := range uint16(6) {
		if i >= 3 {
			h.Publish(Event{Kind: Stopped, VM: "live", Port: i})
		}
		if e := <-got; e.Port != i || e.Cursor != before+1+uint64(i) || e.Time.IsZero() {
			t.Errorf("event %d is %+v", i, e)
		}
	}
}

func TestAVMThatFlapsCostsABoundAndIsCountedAndNoOtherVMLosesItsHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 10_000
		long := Event{Kind: Denied, VM: "bad", Words: strings.Repeat("x", 100_000), Host: make([]string, 1000)}
		h := New()
		start := h.Now()
		h.Publish(Event{Kind: VMUp, VM: "good"})
		for range many {
			h.Publish(long)
		}
		time.Sleep(2 * leftOutAfter)
		all := follow(t, h, start, 1)
		count := map[string]int{}
		for _, e := range all {
			count[e.VM+" "+e.Kind]++
			if len(e.Words) > maxWords+len("…") || len(e.Host) > maxHost {
				t.Fatalf("an event has %d bytes and %d addresses", len(e.Words), len(e.Host))
			}
		}
		last := all[len(all)-1]
		if count["good vm_up"] != 1 || count["bad denied"]+count["bad left_out"] != Kept || last.Kind != LeftOut || last.Count != many-Kept || last.Words != fmt.Sprintf("%d more like it", many-Kept) {
			t.Errorf("%v, and at last %+v", count, last)
		}
		if all[0].Kind == Missed && all[0].Count != 1 {
			t.Errorf("missed are %d", all[0].Count)
		}
	})
}

func TestAFollowerThatIsSlowIsToldHowManyItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New()
		start := h.Now()
		for range 2 * Kept {
			h.Publish(Event{Kind: Claim, VM: "dev"})
			time.Sleep(time.Second / perSecond)
		}
		all := follow(t, h, start, 1)
		if first := all[0]; first.Kind != Missed || first.Count != Kept || all[1].Cursor != first.Cursor+1 || len(all) != Kept+1 {
			t.Errorf("%d events, the first %+v, then %+v", len(all), first, all[1])
		}
	})
}

func TestACursorOfAnEarlierRunBringsAllAndOneOfNoRunNothing(t *testing.T) {
	earlier := New().Now() - 1_000_000
	h := New()
	h.Publish(Event{Kind: VMUp, VM: "dev"})
	if all := follow(t, h, earlier, 1); len(all) != 1 || all[0].Kind != VMUp {
		t.Errorf("%+v", all)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Follow(ctx, h.Now()+1000, func([]Event) error { return errEnough }); err != nil {
		t.Error(err)
	}
}

func TestThePastBeginsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New()
		h.Publish(Event{Kind: VMUp, VM: "old"})
		time.Sleep(time.Minute)
		h.Publish(Event{Kind: VMUp, VM: "new"})
		time.Sleep(time.Minute)
		for ago, want := range map[time.Duration]string{3 * time.Minute: "old", 90 * time.Second: "new"} {
			if all := follow(t, h, h.At(time.Now().Add(-ago)), 1); all[0].VM != want {
				t.Errorf("%v ago: %+v", ago, all)
			}
		}
		if h.At(time.Now()) != h.Now() {
			t.Error("something is newer than now")
		}
	})
}

func TestManyVMsTakeABoundOfMemory(t *testing.T) {
	h := New()
	for i := range 3 * maxVMs {
		h.Publish(Event{Kind: VMUp, VM: fmt.Sprint("vm", i)})
	}
	if len(h.vms) > maxVMs {
		t.Errorf("%d VMs have a history", len(h.vms))
	}
	if last := fmt.Sprint("vm", 3*maxVMs-1); h.vms[last] == nil {
		t.Error("the newest is forgotten")
	}
}

// Nothing has happened yet, and the cursor is of an earlier run or of none.
func TestWhoFollowsFromBeforeTheFirstEventIsToldOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New()
		time.AfterFunc(time.Second, func() { h.Publish(Event{Kind: VMUp, VM: "dev"}) })
		if all := follow(t, h, 0, 1); len(all) != 1 || all[0].Kind != VMUp {
			t.Errorf("%+v", all)
		}
	})
}
