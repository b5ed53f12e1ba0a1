package backoff

import (
	"testing"
	"time"
)

func TestBackoffGrowsToItsCap(t *testing.T) {
	var b Backoff
	now := time.Now()
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		want *= time.Millisecond
		if got := b.Next(now); got > want || got < want*4/5 {
			t.Errorf("delay %d is %v, want up to a fifth less than %v", i, got, want)
		}
	}
}

func TestBackoffIsShortForAWhileAfterALoss(t *testing.T) {
	var b Backoff
	now := time.Now()
	b.LostLink(now, time.Hour)
	for range 20 {
		if got := b.Next(now.Add(10 * time.Second)); got > 500*time.Millisecond {
			t.Fatalf("delay of %v soon after the loss", got)
		}
	}
	var last time.Duration
	for range 10 {
		last = b.Next(now.Add(time.Minute))
	}
	if last < 4*time.Second {
		t.Errorf("delay of %v long after the loss", last)
	}
}

func TestCrashLoopingGuestIsNotDialledInABurst(t *testing.T) {
	var b Backoff
	now := time.Now()
	for range 5 {
		b.LostLink(now, 10*time.Millisecond)
		b.Next(now)
	}
	b.LostLink(now, 10*time.Millisecond)
	if got := b.Next(now); got < 400*time.Millisecond {
		t.Errorf("delay of %v in a crash loop", got)
	}
}
