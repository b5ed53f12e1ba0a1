package epollwait

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// parking is a wait in Go's poller, for which an epoll descriptor is a descriptor like any
// other: there is something to read when there are events.
type parking struct {
	file *os.File // a copy of the descriptor; nil while nobody waits here
	raw  syscall.RawConn
}

func (p *parking) wait(epoll int, events []unix.EpollEvent) (n int, err error) {
	if p.file == nil && p.open(epoll) != nil {
		return unix.EpollWait(epoll, events, -1) // descriptors have run out
	}
	closed := p.raw.Read(func(uintptr) bool {
		n, err = epollNow(epoll, events)
		return n != 0
	})
	if err == nil {
		err = closed
	}
	return n, err
}

func (p *parking) open(epoll int) error {
	fd, err := unix.FcntlInt(uintptr(epoll), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_ = unix.SetNonblock(fd, true) // for NewFile to give it to the poller
	p.file = os.NewFile(uintptr(fd), "epoll")
	p.raw, err = p.file.SyscallConn()
	return err
}

// close is for who waits otherwise: the poller would be woken by each event, too.
func (p *parking) close() {
	if p.file != nil {
		_ = p.file.Close()
		p.file, p.raw = nil, nil
	}
}
