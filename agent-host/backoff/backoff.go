// Package backoff is how long to wait between attempts to reach a guest agent.
package backoff

import (
	"math/rand/v2"
	"time"
)

const (
	// Min is the shortest delay.
	Min     = 100 * time.Millisecond
	longest = 5 * time.Second
	// quickMax bounds the delay for quickPhase after a link that worked was
	// lost: a guest agent that is restarted is found again well within two
	// seconds.
	quickMax   = 500 * time.Millisecond
	quickPhase = 15 * time.Second
	// A link that lasted less than shortLink does not make the next delay
	// short again, or a guest agent that crashes right after its announcement
	// would be dialled ten times a second.
	shortLink = time.Second
)

// Backoff is the delay between attempts to reach a guest agent. Its zero value
// is before the first attempt.
type Backoff struct {
	delay time.Duration
	lost  time.Time // when a link that worked was last lost
}

// LostLink notes the end of a link on which the guest announced something.
func (b *Backoff) LostLink(now time.Time, lasted time.Duration) {
	b.lost = now
	if lasted >= shortLink {
		b.delay = 0
	}
}

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next(now time.Time) time.Duration {
	limit := longest
	if !b.lost.IsZero() && now.Sub(b.lost) < quickPhase {
		limit = quickMax
	}
	b.delay = min(max(2*b.delay, Min), limit)
	// A fifth of jitter keeps the links of many VMs from moving in step.
	return b.delay - time.Duration(rand.Int64N(int64(b.delay)/5))
}
