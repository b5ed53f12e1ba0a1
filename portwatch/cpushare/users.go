package cpushare

import "time"

// users gives each user a budget of his own: who has spent it waits, and nobody else does.
type users struct {
	percent int
	least   time.Duration
	most    time.Duration
	of      map[uint32]*Budget // of those who have spent something of late
}

// newUsers returns budgets as NewBudget does. Nobody waits for longer than most.
func newUsers(percent int, least, most time.Duration) users {
	return users{percent: percent, least: least, most: most, of: make(map[uint32]*Budget)}
}

// Spend takes the CPU time that something took for a user.
func (u *users) Spend(user uint32, now time.Time, cpu time.Duration) {
	b := u.of[user]
	if b == nil {
		first := NewBudget(u.percent, u.least, now)
		b = &first
		u.of[user] = b
	}
	b.Spend(now, cpu)
}

// Wait is how long what is next for a user has to wait.
func (u *users) Wait(user uint32, now time.Time) time.Duration {
	b := u.of[user]
	if b == nil {
		return 0
	}
	return min(b.Wait(now), u.most)
}

// Forget forgets those who have all their budget again.
func (u *users) Forget(now time.Time) {
	for user, b := range u.of {
		if b.refill(now); b.left == b.bank {
			delete(u.of, user)
		}
	}
}
