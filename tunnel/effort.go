package tunnel

import (
	"errors"
	"time"

	"golang.org/x/time/rate"
)

const (
	// effortShare is how much of a processor a peer's messages may take for long,
	// and effortBurst how much time at a stretch before that counts.
	effortShare = 0.08
	effortBurst = time.Second / 4
	// messageCost is what a message costs before anything is done about it.
	messageCost = 5 * time.Microsecond
)

var errEnded = errors.New("the link has ended")

// effort bounds the processor time that a peer can cause. It is accounted in
// microseconds.
type effort struct{ left *rate.Limiter }

func newEffort() effort {
	return effort{rate.NewLimiter(effortShare*rate.Limit(time.Second/time.Microsecond), int(effortBurst/time.Microsecond))}
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
