package forward

import "time"

// turnTime is how long work on a table goes on while others wait: a VM that
// announces thousands of ports does not keep another's from being opened, nor a
// status from being given.
const turnTime = 2 * time.Millisecond

// inTurns repeats work until it reports that there is no more, or the table is
// closed. Each time it has about until then; other VMs' work comes in between. It
// holds turn and mu.
func (t *Table) inTurns(work func(until time.Time) (more bool)) {
	for more := true; more; {
		t.turn.Lock()
		t.mu.Lock()
		more = !t.closed && work(time.Now().Add(turnTime))
		t.mu.Unlock()
		t.turn.Unlock()
	}
}
