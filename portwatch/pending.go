package portwatch

import (
	"slices"
	"time"
)

const (
	// minPlaces is how many places are asked for one by one; for more the whole table
	// is cheaper. The kernel walks all of it for each of them, and hands out both
	// families' for two of them, but each row of these costs about a fiftieth of a walk.
	minPlaces, maxPlaces, rowsForAPlace = 2, 8, 50
	// maxPending bounds the places that wait to be looked at.
	maxPending = 256
)

// retries are the times after which a place is looked at again where the kernel has
// told of a change that is not to be seen yet: most events come while it is being
// made, and who makes it may have to wait for a processor. Where only the port of a
// change is known, it may have been in another network namespace: then the first few
// of these have to do.
var retries = []time.Duration{
	200 * time.Microsecond, time.Millisecond, 4 * time.Millisecond, 20 * time.Millisecond,
	100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second,
}

const blindRetries = 4

// event says that something has happened to a socket, and that it is time to look.
type event struct {
	place
	cookie uint64 // 0 where it is not known
	opened bool   // or closed
}

// pending is a place that is to be looked at.
type pending struct {
	due   time.Time
	tries int
	// want is by cookie whether the kernel has told that the socket is there.
	want map[uint64]bool
	// blind: something has happened to a socket whose cookie is not known.
	blind bool
}

// asked is what to look at.
type asked struct {
	places []place
	ports  []port   // of what has happened
	whole  []string // the protocols of which places are all
	// everything is that all of a protocol is due, whatever has happened.
	everything bool
}

func (f *follower) ask(now time.Time) (a asked) {
	most := min(minPlaces+f.picture.count/rowsForAPlace, maxPlaces)
	for _, proto := range []string{"tcp", "udp"} {
		var some []place
		for at, p := range f.pending {
			if at.proto != proto || p.due.After(now) {
				continue
			}
			some = append(some, at)
			if p := at.both(); !slices.Contains(a.ports, p) {
				a.ports = append(a.ports, p)
			}
		}
		due := slices.ContainsFunc(some, place.isTable) || !f.due[proto].After(now)
		if due || len(some) > most {
			some, a.whole = tables(proto), append(a.whole, proto)
		}
		a.everything = a.everything || due
		a.places = append(a.places, some...)
	}
	return a
}

// settle forgets the places that look as the events said, or that have changed where
// these said no more than that. The others are looked at again, a few times.
func (f *follower) settle(now time.Time, changed []socket) {
	for at, p := range f.pending {
		if p.blind && slices.ContainsFunc(changed, func(s socket) bool { return s.isAt(at) }) {
			p.blind = false
		}
		if p.due.After(now) {
			continue
		}
		settled := !p.blind
		for cookie, there := range p.want {
			settled = settled && f.picture.has(cookie) == there
		}
		if settled || p.tries == len(retries) || len(p.want) == 0 && p.tries == blindRetries {
			delete(f.pending, at)
			continue
		}
		p.due = now.Add(retries[p.tries])
		p.tries++
	}
}
