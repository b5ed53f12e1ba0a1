package openurl

import (
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

const (
	// every is how often a VM may have something opened for long, and burst how many at a time.
	every = 5 * time.Second
	burst = 8
	// everyOfUser is how often a user of a VM has one beside that, which others cannot use up, and maxUsers how many
	// users do.
	everyOfUser = time.Minute
	maxUsers    = 16
	// maxBusy of a VM, and maxBusyOfUser of a user there, are decided about at a time.
	maxBusy       = 8
	maxBusyOfUser = 2
)

// users share what a VM may have opened. The guest agent says whose a URL is: what a VM has is bounded whatever it says.
type users struct {
	pace *rate.Limiter
	busy int
	of   map[uint32]*user
}

type user struct {
	own  *rate.Limiter
	busy int
}

func newUsers() users {
	return users{pace: rate.NewLimiter(rate.Every(every), burst), of: make(map[uint32]*user)}
}

// begin counts a URL of a user that is decided about until end, or says why it is not.
func (u *users) begin(id uint32) error {
	one := u.of[id]
	if one == nil {
		one = &user{own: rate.NewLimiter(rate.Every(everyOfUser), 1)}
		if !u.room() {
			one.own = rate.NewLimiter(0, 0) // until he is forgotten, which is at once where he is not busy
		}
		u.of[id] = one
		defer u.forget(id)
	}
	switch {
	case u.busy >= maxBusy || one.busy >= maxBusyOfUser:
		return fmt.Errorf("%d pages are decided about already", u.busy)
	case !one.own.Allow() && !u.pace.Allow():
		return fmt.Errorf("too many pages for now; one every %v can be had", every)
	}
	u.busy++
	one.busy++
	return nil
}

func (u *users) end(id uint32) {
	u.busy--
	u.of[id].busy--
	u.forget(id)
}

// room reports whether one more user can have something of his own, for which those are forgotten who have all of theirs.
func (u *users) room() bool {
	for id, one := range u.of {
		if len(u.of) >= maxUsers && one.busy == 0 && one.own.Tokens() >= 1 {
			delete(u.of, id)
		}
	}
	return len(u.of) < maxUsers
}

// forget drops a user who has nothing of his own.
func (u *users) forget(id uint32) {
	if one := u.of[id]; one.busy == 0 && one.own.Burst() == 0 {
		delete(u.of, id)
	}
}
