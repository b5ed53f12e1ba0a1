package cpushare

import (
	"iter"
	"maps"
	"time"
)

// Shares are what Turns let use. All times are of one CPU.
type Shares struct {
	All, User   int           // percent, in all and for each user
	Least       time.Duration // that anything costs
	LeastOfTurn time.Duration // that a user's turn costs
	MaxTurn     time.Duration // the longest that one waits for his turn
}

// Turns let users come one after the other: who causes work all the time comes less often,
// and delays nobody else. Meanwhile he is quiet: what he does wakes nobody.
type Turns struct {
	setQuiet func(user uint32, quiet bool)
	all      Budget
	users    users
	owed     map[uint32]time.Duration // not paid yet
	quiet    map[uint32]bool
}

// NewTurns returns Turns that say who is quiet, and who is not any more.
func NewTurns(s Shares, now time.Time, setQuiet func(user uint32, quiet bool)) Turns {
	return Turns{
		setQuiet: setQuiet, all: NewBudget(s.All, s.Least, now), users: newUsers(s.User, s.LeastOfTurn, s.MaxTurn),
		owed: make(map[uint32]time.Duration), quiet: make(map[uint32]bool),
	}
}

// Wait is how long everybody has to wait.
func (t *Turns) Wait(now time.Time) time.Duration { return t.all.Wait(now) }

// Quiet are the users who are quiet.
func (t *Turns) Quiet() iter.Seq[uint32] { return maps.Keys(t.quiet) }

// Owe notes what something has cost for a user, who pays after his turn.
func (t *Turns) Owe(now time.Time, cpu time.Duration, user uint32) {
	t.all.Spend(now, cpu)
	t.owed[user] += cpu
}

// Share is Owe for users who share the cost.
func (t *Turns) Share(now time.Time, cpu time.Duration, among map[uint32]int) {
	t.all.Spend(now, cpu)
	sum := 0
	for _, n := range among {
		sum += n
	}
	for user, n := range among {
		t.owed[user] += cpu * time.Duration(n) / time.Duration(sum)
	}
}

// Pay has the users pay what they owe. Who has to wait now is quiet until his turn.
func (t *Turns) Pay(now time.Time) {
	for user, cpu := range t.owed {
		t.users.Spend(user, now, cpu)
		if !t.quiet[user] && t.users.Wait(user, now) > 0 {
			t.quiet[user] = true
			t.setQuiet(user, true)
		}
	}
	clear(t.owed)
	for user := range t.quiet {
		if t.users.Wait(user, now) == 0 {
			delete(t.quiet, user)
			t.setQuiet(user, false)
		}
	}
}

// Forget forgets the users who have all their budget again.
func (t *Turns) Forget(now time.Time) { t.users.Forget(now) }

// Next is when the next turn of a quiet user comes, or until if that is sooner.
func (t *Turns) Next(until, now time.Time) time.Time {
	for user := range t.quiet {
		if at := now.Add(t.users.Wait(user, now)); at.Before(until) {
			until = at
		}
	}
	return until
}

// Of is when it is the turn of one of some users, but not before due.
func (t *Turns) Of(users []uint32, due, now time.Time) time.Time {
	first := time.Duration(-1)
	for _, user := range users {
		if wait := t.users.Wait(user, now); first < 0 || wait < first {
			first = wait
		}
	}
	if at := now.Add(first); at.After(due) {
		return at
	}
	return due
}
