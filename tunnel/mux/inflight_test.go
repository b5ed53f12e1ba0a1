package mux

import (
	"testing"
	"testing/synctest"
	"time"
)

// line carries bytes at a rate, in turn, and says a while later what has arrived, as a peer does.
type line struct {
	s     *sending
	queue chan int
	idle  chan struct{} // closed at the end
}

func newLine(perSecond int, delay time.Duration) *line {
	l := &line{newSending(), make(chan int, 1<<16), make(chan struct{})}
	go func() {
		defer close(l.idle)
		unread := 0
		for n := range l.queue {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(perSecond))
			if unread += n; unread >= readEvery {
				read := unread
				time.AfterFunc(delay, func() { l.s.arrived(read) })
				unread = 0
			}
		}
	}()
	return l
}

func (l *line) send(n int) {
	l.s.wait(n)
	l.queue <- n
}

// TestBulkOnASlowNetworkHoldsUpNothingForLong: whatever comes behind it waits as long as what is under way takes.
func TestBulkOnASlowNetworkHoldsUpNothingForLong(t *testing.T) {
	for _, rate := range []int{1 << 20, 10 << 20, 100 << 20} {
		synctest.Test(t, func(t *testing.T) {
			l := newLine(rate, 0)
			defer func() { close(l.queue); <-l.idle }()
			began := time.Now()
			for sent := 0; sent < 20*rate; sent += Chunk {
				l.send(Chunk)
			}
			l.s.mu.Lock()
			waits := time.Duration(l.s.sent-l.s.read) * time.Second / time.Duration(rate)
			l.s.mu.Unlock()
			if waits > 500*time.Millisecond {
				t.Errorf("at %d bytes a second what comes behind waits %v", rate, waits)
			}
			if took := time.Since(began); took > 21*time.Second {
				t.Errorf("at %d bytes a second the line was idle: %v for 20 s of it", rate, took)
			}
		})
	}
}

// TestALongWayIsFilledAndAShortOneNotFlooded: what is under way beyond what the line takes only waits in somebody's buffer.
func TestALongWayIsFilledAndAShortOneNotFlooded(t *testing.T) {
	const rate = 50 << 20
	for _, way := range []struct {
		delay time.Duration
		most  int // bytes under way
	}{
		{0, 2 * firstUnderWay},
		{time.Millisecond, 2 * firstUnderWay},
		{40 * time.Millisecond, mostUnderWay},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLine(rate, way.delay)
			defer func() { close(l.queue); <-l.idle }()
			began := time.Now()
			for sent := 0; sent < 20*rate; sent += Chunk {
				l.send(Chunk)
			}
			l.s.mu.Lock()
			underWay := int(l.s.sent - l.s.read)
			l.s.mu.Unlock()
			if underWay > way.most {
				t.Errorf("at %v away %d bytes are under way, want at most %d", way.delay, underWay, way.most)
			}
			if took := time.Since(began); took > 21*time.Second {
				t.Errorf("at %v away the line was idle: %v for 20 s of it", way.delay, took)
			}
		})
	}
}

func TestAnEndOfASessionLetsWhoWaitsGoOn(t *testing.T) {
	s := newSending()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			s.wait(Chunk)
		}
	}()
	s.end()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("it waits")
	}
}

func TestAPeerThatSaysItHasReadMoreThanWasSentGainsNothing(t *testing.T) {
	s := newSending()
	s.wait(Chunk)
	s.arrived(1 << 30)
	if s.read != s.sent {
		t.Errorf("%d of %d bytes are read", s.read, s.sent)
	}
}
