// Package budget bounds the processor time that a peer can cause. What is done for it
// is paid for when it is done; a peer in debt is not read from until that is paid off.
//
// Who waits is who causes the cost: each way by which a peer causes some has a budget of
// its own, and nothing else waits for that.
package budget

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// MessageCost is what a message costs before anything is done about it, and ByteCost
// what each byte of it costs to arrive.
const (
	MessageCost = 5 * time.Microsecond
	ByteCost    = time.Nanosecond
)

// Limits are how much of a processor may be taken for long, and how much time at a
// stretch before that counts.
type Limits struct {
	Share float64
	Burst time.Duration
}

var (
	// Link is for what a peer causes with the messages of a link that serve no client.
	Link = Limits{0.08, time.Second / 4}
	// Ends is for messages about the ends of streams that are not there, on their own
	// connection. Those of other streams do not wait for the rest of the link.
	Ends = Limits{0.02, time.Second / 20}
	// Datagrams is for those that serve nobody, as those do that are under way when a
	// service ends.
	Datagrams = Limits{0.05, time.Second / 4}
)

// ErrEnded is that there is nobody left to wait for.
var ErrEnded = errors.New("the link has ended")

// Budget is what is left of the processor time that one peer may cause, in nanoseconds. A
// debt is at most as large as the burst, so that whoever waits for it does not wait for
// ever where more was done meanwhile. Make one with [New].
type Budget struct {
	mu     sync.Mutex // held to spend
	tokens *rate.Limiter
}

// New returns a budget that nothing has been spent of.
func New(l Limits) *Budget {
	return &Budget{tokens: rate.NewLimiter(rate.Limit(l.Share*float64(time.Second)), int(l.Burst))}
}

// Spend takes time off the budget, which may leave it in debt.
func (b *Budget) Spend(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, burst := time.Now(), b.tokens.Burst()
	most := int(b.tokens.TokensAt(now)) + burst     // else the debt would be larger
	for n := min(int(d), most); n > 0; n -= burst { // a limiter takes no more at a time
		b.tokens.ReserveN(now, min(n, burst))
	}
}

// Left is how much may be spent now; less than zero is a debt.
func (b *Budget) Left() time.Duration { return time.Duration(b.tokens.Tokens()) }

// Pause is how long to do nothing for the peer until its debt is paid off; zero or
// less if it has none.
func (b *Budget) Pause() time.Duration {
	return time.Duration(-b.tokens.Tokens() / float64(b.tokens.Limit()) * float64(time.Second))
}

// Wait waits until there is no debt. It returns [ErrEnded] if ended is closed first.
func (b *Budget) Wait(ended <-chan struct{}) error {
	for {
		pause := b.Pause()
		if pause <= 0 {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ended:
			timer.Stop()
			return ErrEnded
		}
	}
}
