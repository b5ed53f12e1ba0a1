package relay

import (
	"sync/atomic"
	"time"
)

// LatencyBounds are the upper bounds of what a [Latency] tells apart: an answer of the same machine takes tens of
// microseconds, one of an emulated VM milliseconds, and one that had to wait for a retransmission a second or more.
var LatencyBounds = [...]time.Duration{
	100 * time.Microsecond, 300 * time.Microsecond, time.Millisecond, 3 * time.Millisecond,
	10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second,
}

// Latency counts how long something took. The zero value is ready, and several goroutines may use it at once.
type Latency struct {
	counts [len(LatencyBounds) + 1]atomic.Uint64 // by the first bound that it does not exceed
	sum    atomic.Int64                          // in nanoseconds
}

// Observe counts one that took so long.
func (l *Latency) Observe(d time.Duration) {
	i := 0
	for i < len(LatencyBounds) && d > LatencyBounds[i] {
		i++
	}
	l.counts[i].Add(1)
	l.sum.Add(int64(d))
}

// Counts are how many took at most each of [LatencyBounds], how many there were, and how long they took together.
func (l *Latency) Counts() (atMost [len(LatencyBounds)]uint64, all uint64, sum time.Duration) {
	for i := range l.counts {
		all += l.counts[i].Load()
		if i < len(atMost) {
			atMost[i] = all
		}
	}
	return atMost, all, time.Duration(l.sum.Load())
}
