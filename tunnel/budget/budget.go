// Package budget bounds the processor time that a peer can cause. What is done for it
// is paid for when it is done; a peer in debt is not read from until that is paid off.
package budget

import (
	"errors"
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

// Link is for what a peer causes with the messages of a link that serve no client.
var Link = Limits{0.08, time.Second / 4}

// ErrEnded is that there is nobody left to wait for.
var ErrEnded = errors.New("the link has ended")

// Budget is what is left of the processor time that one peer may cause. It is kept in
// microseconds, of which each spending takes at least one. Make one with [New].
type Budget struct{ tokens *rate.Limiter }

// New returns a budget that nothing has been spent of.
func New(l Limits) *Budget {
	return &Budget{rate.NewLimiter(rate.Limit(l.Share)*rate.Limit(time.Second/time.Microsecond), int(l.Burst/time.Microsecond))}
}

// Spend takes time off the budget, which may leave it in debt.
func (b *Budget) Spend(d time.Duration) {
	b.tokens.ReserveN(time.Now(), min(max(int(d/time.Microsecond), 1), b.tokens.Burst()))
}

// Left is how much may be spent now; less than zero is a debt.
func (b *Budget) Left() time.Duration {
	return time.Duration(b.tokens.Tokens() * float64(time.Microsecond))
}

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
