package stream

import (
	"sync"
	"time"
)

// deadline is a point in time that can be waited for and moved meanwhile, for
// the one wait of a stream that its connection's own deadline cannot end. The
// zero value is no deadline; a channel is made only when somebody waits.
type deadline struct {
	mu    sync.Mutex
	at    time.Time
	timer *time.Timer
	ch    chan struct{}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	if d.ch != nil {
		d.arm()
	}
}

// wait returns a channel that is closed once the deadline has passed.
func (d *deadline) wait() <-chan struct{} {
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
func (d *deadline) arm() {
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

func (d *deadline) expire() {
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
