package tunnel

import (
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
)

const (
	// refusalCost is what a stream costs that serves no client.
	refusalCost = 100 * time.Microsecond
	// maxHeld is how many of them wait at a time for what they cost, and maxHeldKeyless
	// that on a link without a key.
	maxHeld        = 256
	maxHeldKeyless = 32
)

// refusals pay for streams of a peer that serve no client. The peer may only pass on what
// one of its users does, who is not to hold up others there: so nothing waits for what
// they cost but the answers to them.
type refusals struct {
	work *budget.Budget
	held chan struct{} // bounds those that wait
}

func newRefusals(l budget.Limits, most int) refusals {
	return refusals{budget.New(l), make(chan struct{}, most)}
}

// pay returns when what one costs is paid for, or ended is closed. It reports false at
// once, and takes nothing, if too many wait already.
func (r refusals) pay(ended <-chan struct{}) bool {
	select {
	case r.held <- struct{}{}:
	default:
		return false
	}
	defer func() { <-r.held }()
	r.work.Spend(refusalCost)
	pause := r.work.Pause() // behind those that came before
	if pause <= 0 {
		return true
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ended:
	}
	return true
}
