package cpushare

import "time"

// bankTime is for how long CPU time is saved up for a burst.
const bankTime = 800 * time.Millisecond

// Budget bounds the CPU time that something uses: a burst is looked at at once, and what
// goes on and on is shown a hundred times a second, or less often if that is much work.
type Budget struct {
	share time.Duration // percent of one CPU
	bank  time.Duration // the most that is saved up
	least time.Duration
	left  time.Duration
	at    time.Time
}

// NewBudget returns a budget of so many percent of one CPU. Once all is spent, at least
// least has to be saved again before anything comes next.
func NewBudget(percent int, least time.Duration, now time.Time) Budget {
	share := time.Duration(percent)
	bank := bankTime * share / 100
	return Budget{share: share, bank: bank, least: least, left: bank, at: now}
}

// Spend takes the CPU time that something took.
func (b *Budget) Spend(now time.Time, cpu time.Duration) {
	b.refill(now)
	b.left -= cpu
}

// Wait is how long what comes next has to wait.
func (b *Budget) Wait(now time.Time) time.Duration {
	b.refill(now)
	if b.left > 0 {
		return 0
	}
	return (b.least - b.left) * 100 / b.share
}

func (b *Budget) refill(now time.Time) {
	b.left = min(b.left+now.Sub(b.at)*b.share/100, b.bank)
	b.at = now
}
