package peerlog

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// maxQueued bounds in bytes what waits to be written.
const maxQueued = 256 << 10

// Writer writes lines without making anybody wait for it: a terminal that was stopped
// or a full pipe blocks a goroutine only. What does not fit is dropped and counted.
type Writer struct {
	w io.Writer

	mu      sync.Mutex
	queued  []byte
	dropped int
	ready   chan struct{} // has a token while there is something to write
	closed  bool
	done    chan struct{} // closed when all is written after Close
}

// NewWriter returns a Writer to w. Close ends its goroutine.
func NewWriter(w io.Writer) *Writer {
	q := &Writer{w: w, ready: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write queues one or more lines. It never waits and never fails.
func (q *Writer) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.queued)+len(b) > maxQueued {
		q.dropped++
		return len(b), nil
	}
	q.queued = append(q.queued, b...)
	q.wake()
	return len(b), nil
}

// wake needs q.mu.
func (q *Writer) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *Writer) run() {
	defer close(q.done)
	for {
		<-q.ready
		q.mu.Lock()
		batch, dropped, closed := q.queued, q.dropped, q.closed
		q.queued, q.dropped = nil, 0
		q.mu.Unlock()
		if dropped > 0 {
			batch = fmt.Appendf(batch, "%d lines of the log were lost: they were not taken in time\n", dropped)
		}
		_, _ = q.w.Write(batch) // there is nowhere to say that it failed
		if closed {
			return
		}
	}
}

// Close writes what is queued, for at most limit.
func (q *Writer) Close(limit time.Duration) {
	q.mu.Lock()
	q.closed = true
	q.wake()
	q.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-q.done:
	case <-timer.C:
	}
}
