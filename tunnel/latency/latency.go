// Package latency counts how long something took.
package latency

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper bounds of what a [Counter] tells apart: an answer of the same machine takes tens of
// microseconds, one of an emulated VM milliseconds, and one that had to wait for a retransmission a second or more.
var Bounds = [...]time.Duration{
	100 * time.Microsecond, 300 * time.Microsecond, time.Millisecond, 3 * time.Millisecond,
	10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second,
}

// Counter counts how long something took. The zero value is ready, and several goroutines may use it at once.
type Counter struct {
	seen atomic.Pointer[latencies] // nil until something is: most ports never have a client
}

type latencies struct {
	counts [len(Bounds) + 1]atomic.Uint64 // by the first bound that it does not exceed
	sum    atomic.Int64                   // in nanoseconds
}

// Observe counts one that took so long.
func (l *Counter) Observe(d time.Duration) {
	i := 0
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	if l.seen.Load() == nil {
		l.seen.CompareAndSwap(nil, new(latencies))
	}
	seen := l.seen.Load()
	seen.counts[i].Add(1)
	seen.sum.Add(int64(d))
}

// Counts are how many took at most each of [Bounds], how many there were, and how long they took together.
func (l *Counter) Counts() (atMost [len(Bounds)]uint64, all uint64, sum time.Duration) {
	seen := l.seen.Load()
	if seen == nil {
		return atMost, 0, 0
	}
	for i := range seen.counts {
		all += seen.counts[i].Load()
		if i < len(atMost) {
			atMost[i] = all
		}
	}
	return atMost, all, time.Duration(seen.sum.Load())
}
