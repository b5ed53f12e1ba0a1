// Package turns has a lock that work of more than a moment holds in turns, and what takes a
// moment comes in between: a VM that announces thousands of ports does not keep another's from
// being opened. What the work is it does not know.
package turns

import (
	"sync"
	"sync/atomic"
	"time"
)

// turnTime is how long work goes on while others wait.
const turnTime = 2 * time.Millisecond

// Rest lets others come in between. While goroutines are ready to run, Go looks only
// every 10 ms whether the network has something for one that waits (sysmon in
// runtime/proc.go); a processor that finds nothing to do looks at once.
func Rest() { time.Sleep(100 * time.Microsecond) }

// Lock is the lock. Its zero value is open, and held by nobody.
type Lock struct {
	mu sync.Mutex
	// turn is held, in addition to mu and before it, by whoever has work for more than a
	// moment. urgent counts who waits for mu otherwise.
	turn   sync.Mutex
	urgent atomic.Int32
	closed bool
}

// Lock is for what takes a moment and is not urgent.
func (l *Lock) Lock() { l.mu.Lock() }

// Unlock ends what Lock began.
func (l *Lock) Unlock() { l.mu.Unlock() }

// LockTurn is Lock between two turns of other work.
func (l *Lock) LockTurn() { l.turn.Lock(); l.mu.Lock() }

// UnlockTurn ends what LockTurn began.
func (l *Lock) UnlockTurn() { l.mu.Unlock(); l.turn.Unlock() }

// Close has no work done any more. It needs the lock, as Closed does.
func (l *Lock) Close() { l.closed = true }

// Closed reports whether Close was called.
func (l *Lock) Closed() bool { return l.closed }

// Turn is a part of work; see [Lock.Begin].
type Turn struct {
	lock *Lock
	end  time.Time
}

// Begin begins a turn of whoever holds the lock.
func (l *Lock) Begin() Turn { return Turn{l, time.Now().Add(turnTime)} }

// Over reports whether others are to come in between: time has passed, or somebody
// waits for whom that would be too long. It is asked after each piece of work, so that
// every turn brings it forward.
func (u Turn) Over() bool { return u.lock.urgent.Load() > 0 || time.Now().After(u.end) }

// InTurns repeats work until it reports that there is no more, or the lock is
// closed. Whoever has work for more than a moment takes turns with the others who have,
// and others come in between. The work holds the lock.
func (l *Lock) InTurns(work func(Turn) (more bool)) {
	for more := true; more; {
		l.LockTurn()
		more = !l.closed && work(l.Begin())
		l.UnlockTurn()
		if more {
			Rest()
		}
	}
}

// AtOnce is InTurns for what takes a moment: it waits for no turns.
func (l *Lock) AtOnce(work func(Turn) (more bool)) {
	for more := true; more; {
		l.Look(func() { more = !l.closed && work(l.Begin()) })
	}
}

// Look does what takes a moment and cannot wait, also after Close.
func (l *Lock) Look(f func()) {
	l.urgent.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.urgent.Add(-1)
	f()
}
