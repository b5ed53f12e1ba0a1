package peerlog

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// maxQueued bounds in bytes what waits to be written.
const maxQueued = 256 << 10

// Writer writes lines without making anybody wait for it: a terminal that was stopped
// or a full pipe blocks a goroutine only. What does not fit is dropped and counted.
type Writer struct {
	w    io.Writer
	lost func(lines int) // says to w how many were dropped

	mu      sync.Mutex
	queued  [][]byte
	size    int // of what is queued, in bytes
	dropped int
	ready   chan struct{} // has a token while there is something to write
	closed  bool
	done    chan struct{} // closed when all is written after Close
}

// newWriter returns a Writer to w. Close ends its goroutine.
func newWriter(w io.Writer, lost func(lines int)) *Writer {
	q := &Writer{w: w, lost: lost, ready: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write queues a line. It never waits and never fails.
func (q *Writer) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.size+len(line) > maxQueued {
		q.dropped++
		return len(line), nil
	}
	q.queued = append(q.queued, bytes.Clone(line))
	q.size += len(line)
	q.wake()
	return len(line), nil
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
		q.queued, q.size, q.dropped = nil, 0, 0
		q.mu.Unlock()
		for _, line := range batch {
			_, _ = q.w.Write(line) // there is nowhere to say that it failed
		}
		if dropped > 0 {
			q.lost(dropped)
		}
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
