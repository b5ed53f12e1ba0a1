package tunnel

import (
	"errors"
	"time"

	"golang.org/x/time/rate"
)

// messageCost is what a message costs before anything is done about it, and byteCost
// what each byte of it costs to arrive.
const (
	messageCost = 5 * time.Microsecond
	byteCost    = time.Nanosecond
)

// effortLimits are how much of a processor may be taken for long, and how much time at
// a stretch before that counts.
type effortLimits struct {
	share float64
	burst time.Duration
}

var (
	// linkEffort is for the messages of a link that serve no client.
	linkEffort = effortLimits{0.08, time.Second / 4}
	// keylessEffort is the same for each of the maxKeyless links that any user of a
	// host may have with a guest agent.
	keylessEffort = effortLimits{0.01, 20 * time.Millisecond}
	// strangersEffort is for all connections that come to nothing.
	strangersEffort = effortLimits{0.08, time.Second / 4}
)

var errEnded = errors.New("the link has ended")

// effort bounds the processor time that a peer can cause. It is accounted in
// microseconds.
type effort struct{ left *rate.Limiter }

// Budget bounds the processor time that one peer can cause over all of its links.
type Budget struct{ work effort }

// NewBudget returns a budget that nothing has been taken of.
func NewBudget() *Budget { return &Budget{newEffort(linkEffort)} }

func newEffort(l effortLimits) effort {
	return effort{rate.NewLimiter(rate.Limit(l.share)*rate.Limit(time.Second/time.Microsecond), int(l.burst/time.Microsecond))}
}

// spent accounts for time.
func (e effort) spent(d time.Duration) {
	e.left.ReserveN(time.Now(), min(max(int(d/time.Microsecond), 1), e.left.Burst()))
}

// rest waits until the peer is worth more effort, or until ended is closed, which is
// an error.
func (e effort) rest(ended <-chan struct{}) error {
	for {
		owed := e.owed()
		if owed <= 0 {
			return nil
		}
		timer := time.NewTimer(owed)
		select {
		case <-timer.C:
		case <-ended:
			timer.Stop()
			return errEnded
		}
	}
}

// owed is how long to do nothing for the peer.
func (e effort) owed() time.Duration {
	return time.Duration(-e.left.Tokens() / float64(e.left.Limit()) * float64(time.Second))
}
