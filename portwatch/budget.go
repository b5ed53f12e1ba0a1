package portwatch

import "time"

const (
	// lookShare is how much of one CPU events and looks may use in the long run, and
	// nameShare how much the search for names.
	lookShare = 10 // percent
	nameShare = 3
	// userShare is how much of one CPU the sockets of one user may cost by being shown.
	userShare = 4
	// budgetBank is the CPU time that is saved up for a burst.
	budgetBank = 50 * time.Millisecond
	// changeCost is the least that a look counts for that finds something new, and
	// listenerCost what it counts for besides for each listener: this is work for
	// others too, for the link and for the host.
	changeCost   = time.Millisecond
	listenerCost = 200 * time.Nanosecond
	// wakeCost is what it costs to be woken by events, and eventCost what each of them
	// costs, about.
	wakeCost  = 100 * time.Microsecond
	eventCost = 2 * time.Microsecond
	// lookCost is what it costs at least to look.
	lookCost = 200 * time.Microsecond
)

// budget bounds the CPU time that something uses, however much happens: a burst is
// looked at at once, and what goes on and on is shown a hundred times a second, or less
// often if that is much work.
type budget struct {
	share time.Duration // percent of one CPU
	least time.Duration // what has to be there after all is spent
	left  time.Duration
	at    time.Time
}

func newBudget(share, least time.Duration, now time.Time) budget {
	return budget{share: share, least: least, left: budgetBank, at: now}
}

// spend takes the CPU time that something took.
func (b *budget) spend(now time.Time, cpu time.Duration) {
	b.refill(now)
	b.left -= cpu
}

// spendChange takes the CPU time of what has found something new among so many listeners.
func (b *budget) spendChange(now time.Time, cpu time.Duration, listeners int) {
	b.spend(now, max(cpu+time.Duration(listeners)*listenerCost, changeCost))
}

// wait is how long what comes next has to wait.
func (b *budget) wait(now time.Time) time.Duration {
	b.refill(now)
	if b.left > 0 {
		return 0
	}
	return (b.least - b.left) * 100 / b.share
}

func (b *budget) refill(now time.Time) {
	b.left = min(b.left+now.Sub(b.at)*b.share/100, budgetBank)
	b.at = now
}
