package stream

import (
	"sync"
	"sync/atomic"
	"time"
)

// deadline is a point in time that can be waited for and moved meanwhile, for
// the one wait of a stream that its connection's own deadline cannot end. The
// zero value is no deadline, and small: most streams are with a pair, which has none.
type deadline struct{ used atomic.Pointer[movable] }

func (d *deadline) set(t time.Time) {
	if !t.IsZero() || d.used.Load() != nil {
		d.movable().set(t)
	}
}

// at is the point in time; zero for none.
func (d *deadline) at() time.Time {
	m := d.used.Load()
	if m == nil {
		return time.Time{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

// wait returns a channel that is closed once the deadline has passed.
func (d *deadline) wait() <-chan struct{} { return d.movable().wait() }

func (d *deadline) movable() *movable {
	if d.used.Load() == nil {
		d.used.CompareAndSwap(nil, new(movable))
	}
	return d.used.Load()
}

// movable is a deadline that somebody has set or waits for. A channel is made only for who waits.
type movable struct {
	mu    sync.Mutex
	at    time.Time
	timer *time.Timer
	ch    chan struct{}
}

func (d *movable) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	if d.ch != nil {
		d.arm()
	}
}

func (d *movable) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ch == nil {
		d.ch = make(chan struct{})
		d.arm()
	}
	return d.ch
}

// arm starts the timer anew. A channel that was closed for an earlier deadline
// is replaced, one that somebody may wait on is kept.
func (d *movable) arm() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	select {
	case <-d.ch:
		d.ch = make(chan struct{})
	default:
	}
	if d.at.IsZero() {
		return
	}
	d.timer = time.AfterFunc(time.Until(d.at), d.expire)
}

func (d *movable) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() || time.Until(d.at) > 0 {
		return // moved while the timer fired
	}
	select {
	case <-d.ch:
	default:
		close(d.ch)
	}
}
