package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

// A connection that is reset loses what the kernel has not sent yet, so a reset
// waits for what came before it. Where the other end does not read, nothing
// moves: loopback would have lost those bytes too, and the reset goes out.
const (
	// drainStall is how long nothing may move before the reset goes out.
	drainStall = time.Second
	// drainMost is how long a reset waits at most, however much still moves.
	drainMost = 30 * time.Second
	// DrainTick is the time between two looks. A client that reads needs none.
	DrainTick = 50 * time.Millisecond
)

// Drain is the wait before a reset.
type Drain struct {
	due, moved time.Time
	seen       uint64
}

// NewDrain begins to wait; progress changes when something moves.
func NewDrain(progress uint64) Drain {
	now := time.Now()
	return Drain{now, now, progress}
}

// Over tells whether it has been long enough.
func (d *Drain) Over(progress uint64) bool {
	now := time.Now()
	if progress != d.seen {
		d.seen, d.moved = progress, now
	}
	return now.Sub(d.moved) >= drainStall || now.Sub(d.due) >= drainMost
}

// unsent is how many bytes of a TCP connection wait for room at its other end. It
// is 0 for every other descriptor: what is written to those is there at once.
func unsent(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQNSD)
	if err != nil {
		return 0
	}
	return n
}

// hangup is what the kernel says of a descriptor beside what is asked: POLLERR
// and POLLHUP.
func hangup(fd int) int16 {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	if n, err := unix.Poll(fds, 0); n != 1 || err != nil {
		return 0
	}
	return fds[0].Revents
}
