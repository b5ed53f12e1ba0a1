package forward

import "time"

// turnTime is how long work on a table goes on while others wait: a VM that
// announces thousands of ports does not keep another's from being opened.
const turnTime = 2 * time.Millisecond

// rest lets others come in between. While goroutines are ready to run, Go looks only
// every 10 ms whether the network has something for one that waits (sysmon in
// runtime/proc.go); a processor that finds nothing to do looks at once.
func rest() { time.Sleep(100 * time.Microsecond) }

// turn is a part of the work on a table.
type turn struct {
	table *Table
	end   time.Time
}

// over reports whether others are to come in between: time has passed, or somebody
// waits for whom that would be too long. It is asked after each piece of work, so that
// every turn brings it forward.
func (u turn) over() bool { return u.table.urgent.Load() > 0 || time.Now().After(u.end) }

// inTurns repeats work until it reports that there is no more, or the table is
// closed. Whoever has work for more than a moment takes turns with the others who have,
// and others come in between. It holds mu.
func (t *Table) inTurns(work func(turn) (more bool)) {
	for more := true; more; {
		t.turn.Lock()
		t.mu.Lock()
		more = !t.closed && work(turn{t, time.Now().Add(turnTime)})
		t.mu.Unlock()
		t.turn.Unlock()
		if more {
			rest()
		}
	}
}

// atOnce is inTurns for what takes a moment: it waits for no turns.
func (t *Table) atOnce(work func(turn) (more bool)) {
	for more := true; more; {
		t.look(func() { more = !t.closed && work(turn{t, time.Now().Add(turnTime)}) })
	}
}

// look does what takes a moment, of a table that may be closed.
func (t *Table) look(f func()) {
	t.urgent.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.urgent.Add(-1)
	f()
}
