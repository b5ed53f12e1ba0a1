package portwatch

import (
	"time"

	"github.com/rum-vm/rum-agent/portwatch/cpushare"
)

const (
	// nameShare is how much of one CPU the search for names may use in the long run.
	nameShare = 3 // percent
	// changeCost is the least that a look counts for that finds something new, and
	// listenerCost what it counts for besides for each listener: this is work for
	// others too, for the link and for the host.
	changeCost   = time.Millisecond
	listenerCost = 500 * time.Nanosecond
	// wakeCost is what it costs to be woken by events, and eventCost what each of them
	// costs, about.
	wakeCost  = 100 * time.Microsecond
	eventCost = 2 * time.Microsecond
)

// lookShares are for events and looks. A user's are 40 changes a second, of the 50 that a
// host takes.
var lookShares = cpushare.Shares{
	All: 10, User: 4, Least: 200 * time.Microsecond, LeastOfTurn: changeCost, MaxTurn: 3 * time.Second,
}

// costOfChange is what the CPU time counts for that has found something new among so many
// listeners.
func costOfChange(cpu time.Duration, listeners int) time.Duration {
	return max(cpu+time.Duration(listeners)*listenerCost, changeCost)
}
