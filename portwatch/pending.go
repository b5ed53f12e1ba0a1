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
	// maxPending bounds the places that wait to be looked at, maxPlacesOfUser those that
	// wait for one user, and maxUsersOfPlace the users that one is looked at for.
	maxPending, maxPlacesOfUser, maxUsersOfPlace = 512, 128, 8
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
	user   uint32 // events.NoUser where it is not known
}

// pending is a place that is to be looked at.
type pending struct {
	due   time.Time
	tries int
	// want is by cookie whether the kernel has told that the socket is there.
	want map[uint64]bool
	// blind: something has happened to a socket whose cookie is not known.
	blind bool
	users []uint32 // who has made something happen there
}

// by notes one of them.
func (p *pending) by(user uint32) {
	if len(p.users) < maxUsersOfPlace && !slices.Contains(p.users, user) {
		p.users = append(p.users, user)
	}
}

// asked is what to look at.
type asked struct {
	places []place
	ports  []port         // of what has happened
	users  map[uint32]int // who has made it happen, and at how many ports
	whole  []string       // the protocols of which places are all
	// everything is that all of a protocol is due, whatever has happened.
	everything bool
}

// wholeWeight is how many ports a user counts for who is looked at as a whole.
const wholeWeight = 64

// add adds a port where users have made something happen.
func (a *asked) add(p port, users ...uint32) {
	weight := wholeWeight
	if p.number != 0 {
		weight = 1
		if !slices.Contains(a.ports, p) {
			a.ports = append(a.ports, p)
		}
	}
	for _, user := range users {
		a.users[user] += weight
	}
}

func (f *follower) ask(now time.Time) asked {
	a := asked{users: make(map[uint32]int)}
	most := min(minPlaces+f.picture.count/rowsForAPlace, maxPlaces)
	for _, proto := range []string{"tcp", "udp"} {
		var some []place
		for at, p := range f.pending {
			if at.proto != proto || f.turns.Of(p.users, p.due, now).After(now) {
				continue
			}
			some = append(some, at)
			a.add(at.both(), p.users...)
		}
		due := !f.due[proto].After(now)
		if due || slices.ContainsFunc(some, place.isTable) || len(some) > most {
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
