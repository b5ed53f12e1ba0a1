package heartbeat

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Late is how much later than it should a heartbeat of ours is when this process, or the machine, did not run
// meanwhile: as long as the shortest time between two.
const Late = time.Second

// Pings is the host's side of the heartbeat. Time is package clock's, which stands still
// while the machine sleeps and does not follow the clock on the wall. The zero value has asked nothing.
type Pings struct {
	asked, answered atomic.Uint64 // sequence numbers of pings and pongs
	askedAt         atomic.Int64  // when the first ping was sent that is not answered yet
	due             atomic.Int64  // when the next heartbeat is due
	since           atomic.Int64  // silence before this says nothing: we did not run, or did not ask
	ahead           atomic.Int64  // of the guest's clock, as of the last pong
}

// Ask is the sequence number of the next ping.
func (p *Pings) Ask(now time.Duration) uint64 {
	if !p.Waiting() {
		p.askedAt.Store(int64(now))
	}
	return p.asked.Add(1)
}

// Asked is how many pings there were.
func (p *Pings) Asked() uint64 { return p.asked.Load() }

// AskedAt is when the first ping was sent that is not answered, or else the last one.
func (p *Pings) AskedAt() time.Duration { return time.Duration(p.askedAt.Load()) }

// Answered notes a pong, and what the guest's clock said then, in nanoseconds since 1970; 0 where it does not tell. Now it
// is wall on this machine. The error is for an answer that is not due.
func (p *Pings) Answered(seq uint64, guest int64, now time.Duration, wall time.Time) error {
	if seq != p.answered.Load()+1 || seq > p.asked.Load() {
		return fmt.Errorf("an answer to heartbeat %d, which is not the next one", seq)
	}
	p.ahead.Store(0)
	if guest != 0 {
		p.ahead.Store(int64(ahead(time.Unix(0, guest), wall, now-p.AskedAt())))
	}
	p.answered.Store(seq)
	return nil
}

// ahead is how much a clock is ahead at least that said then what is told wall now, which took the round trip at most.
func ahead(then, wall time.Time, roundTrip time.Duration) time.Duration {
	d := then.Sub(wall) // the largest or smallest there is where they are centuries apart
	if d > 0 {
		return d
	}
	return min(0, d+roundTrip)
}

// Ahead is how much the guest's clock is ahead of this machine's, or behind where it is negative: at least, as the time
// is not known that an answer takes. It is 0 where nothing is known.
func (p *Pings) Ahead() time.Duration { return time.Duration(p.ahead.Load()) }

// Waiting reports whether the guest owes an answer.
func (p *Pings) Waiting() bool { return p.asked.Load() != p.answered.Load() }

// Beat notes a heartbeat, after which the next is due in so long. It reports whether we
// can judge the guest by what was heard since the last one: one that comes late was not
// there to ask or to listen.
func (p *Pings) Beat(now, next time.Duration) bool {
	onTime := now < time.Duration(p.due.Swap(int64(now+next)))+Late
	if !onTime {
		p.since.Store(int64(now))
	}
	return onTime
}

// Silence is how long the guest has been silent while we listened, when it was heard
// last at the time heard. It is 0 while our own heartbeat is late: then the guest is
// asked before it is judged.
func (p *Pings) Silence(now, heard time.Duration) time.Duration {
	if now >= time.Duration(p.due.Load())+Late {
		return 0
	}
	return now - max(heard, time.Duration(p.since.Load()))
}
