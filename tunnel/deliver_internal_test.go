package tunnel

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/announce"
)

func TestAFewAnnouncementsAreTakenAtOnceAndManyAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queued := make(chan announce.Announcement, 1)
		var last announce.Announcement
		taken := 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- deliver(ctx, queued, func(a announce.Announcement) { last, taken = a, taken+1 })
		}()
		generation := uint64(0)
		announce := func() {
			generation++
			replace(queued, announce.Announcement{Generation: generation})
			synctest.Wait()
		}
		for n := range announceBurst {
			announce()
			if taken != n+1 {
				t.Fatalf("%d of %d announcements taken at once", taken, n+1)
			}
		}
		start := time.Now()
		for time.Since(start) < time.Second {
			announce()
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if n := taken - announceBurst; n > 51 {
			t.Errorf("%d announcements taken in a second, want 50", n)
		}
		time.Sleep(announceInterval)
		synctest.Wait()
		if last.Generation != generation {
			t.Errorf("the last one taken is %d of %d", last.Generation, generation)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
