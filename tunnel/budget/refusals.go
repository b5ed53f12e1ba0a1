package budget

import "time"

// RefusalCost is what a stream costs that serves no client.
const RefusalCost = 100 * time.Microsecond

// Refusals pay for streams of a peer that serve no client. The peer may only pass on what
// one of its users does, who is not to hold up others there: so nothing waits for what
// they cost but the answers to them. Make them with [NewRefusals].
type Refusals struct {
	work *Budget
	held chan struct{} // bounds those that wait
}

// NewRefusals returns some that have nothing to pay. Of them, most may wait at a time for
// what they cost.
func NewRefusals(l Limits, most int) Refusals {
	return Refusals{New(l), make(chan struct{}, most)}
}

// Pay returns when what one costs is paid for, or ended is closed. It reports false at
// once, and takes nothing, if too many wait already.
func (r Refusals) Pay(ended <-chan struct{}) bool {
	select {
	case r.held <- struct{}{}:
	default:
		return false
	}
	defer func() { <-r.held }()
	r.work.Spend(RefusalCost)
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
