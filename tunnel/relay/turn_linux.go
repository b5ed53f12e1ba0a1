package relay

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Turn returns when each loop that has work has come by once, whatever else it does.
func Turn() {
	for _, l := range allLoops() {
		l.mu.Lock()
		running := l.running
		l.mu.Unlock()
		if running {
			l.turn()
		}
	}
}

// turn does nothing where descriptors run out, which is not the loop's doing.
func (l *Loop) turn() {
	fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	p := &passer{passed: make(chan struct{})}
	if err := l.addFD(p, fd, unix.EPOLLIN|unix.EPOLLET); err != nil {
		return
	}
	<-p.passed
	l.remove(&p.registration)
}

// passer waits for its loop to come by.
type passer struct {
	registration
	once   sync.Once
	passed chan struct{}
}

func (p *passer) handle(*Loop, int, uint32) { p.once.Do(func() { close(p.passed) }) }
