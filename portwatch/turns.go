package portwatch

import (
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// turns lets the users of a machine have what they open shown one after the other: who
// opens and closes ports all the time is shown less often, and delays nobody else's.
type turns struct {
	waiting map[uint32]map[port]bool // where sockets of a user have come or gone
	users   map[uint32]*budget       // of those who were shown of late
	paying  []uint32                 // for what take returned last
}

func newTurns() turns {
	return turns{waiting: make(map[uint32]map[port]bool), users: make(map[uint32]*budget)}
}

// add notes sockets that came or went.
func (t *turns) add(changed []socket) {
	for _, s := range changed {
		user := portlist.UserOf(s.uid)
		if t.waiting[user] == nil {
			t.waiting[user] = make(map[port]bool)
		}
		t.waiting[user][s.both()] = true
	}
}

// waits reports whether somebody waits for a port to be shown.
func (t *turns) waits(p port) bool {
	for _, ports := range t.waiting {
		if ports[p] {
			return true
		}
	}
	return false
}

// take returns the ports of those whose turn it is.
func (t *turns) take(now time.Time) (ports []port) {
	t.paying = t.paying[:0]
	taken := make(map[port]bool)
	for user, of := range t.waiting {
		if t.wait(user, now) > 0 {
			continue
		}
		for p := range of {
			if !taken[p] {
				taken[p] = true
				ports = append(ports, p)
			}
		}
		t.paying = append(t.paying, user)
		delete(t.waiting, user)
	}
	return ports
}

// all is for a look at everything: nobody waits any more, and nobody pays.
func (t *turns) all(now time.Time) {
	clear(t.waiting)
	t.paying = t.paying[:0]
	for user, b := range t.users {
		if b.refill(now); b.left == budgetBank {
			delete(t.users, user)
		}
	}
}

// paid is what it has cost to show what take returned.
func (t *turns) paid(now time.Time, cpu time.Duration, listeners int) {
	for _, user := range t.paying {
		if t.users[user] == nil {
			b := newBudget(userShare, changeCost, now)
			t.users[user] = &b
		}
		t.users[user].spendChange(now, cpu, listeners)
	}
}

// next is when somebody's turn comes who waits, or until if that is sooner.
func (t *turns) next(until, now time.Time) time.Time {
	for user := range t.waiting {
		if at := now.Add(t.wait(user, now)); at.Before(until) {
			until = at
		}
	}
	return until
}

func (t *turns) wait(user uint32, now time.Time) time.Duration {
	b := t.users[user]
	if b == nil {
		return 0
	}
	return min(b.wait(now), maxPause)
}
