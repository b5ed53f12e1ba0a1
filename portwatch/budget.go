package portwatch

import "time"

const (
	// budgetShare is how much of one CPU looking may use in the long run.
	budgetShare = 10 // percent
	// budgetBank is the CPU time that is saved up for a burst.
	budgetBank = 50 * time.Millisecond
	// newsCost is the least that a look counts for that finds something new: this is
	// work for others too, for the link and for the host.
	newsCost = time.Millisecond
)

// budget bounds the CPU time that looking uses, however much happens: a burst is
// looked at at once, and what goes on and on is news a hundred times a second, or less
// often if that is much work.
type budget struct {
	left time.Duration
	at   time.Time
}

func newBudget(now time.Time) budget { return budget{left: budgetBank, at: now} }

// spend takes the CPU time of a look.
func (b *budget) spend(now time.Time, cpu time.Duration, news bool) {
	b.refill(now)
	if news {
		cpu = max(cpu, newsCost)
	}
	b.left -= cpu
}

// wait is how long the next look has to wait.
func (b *budget) wait(now time.Time) time.Duration {
	b.refill(now)
	if b.left > 0 {
		return 0
	}
	return min((newsCost-b.left)*100/budgetShare, maxPause)
}

func (b *budget) refill(now time.Time) {
	b.left = min(b.left+now.Sub(b.at)*budgetShare/100, budgetBank)
	b.at = now
}
