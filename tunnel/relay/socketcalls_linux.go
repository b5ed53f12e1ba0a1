package relay

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// This file is the system calls on a number. Who makes one owns the number meanwhile: a pair
// and an acceptor by their lock, a [Descriptor] by its own, others inside
// [syscall.RawConn.Control].

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// takeDescriptor makes the descriptor of a connection or listener ours: Go's
// poller lets go of it.
func takeDescriptor(c io.Closer) (int, error) {
	fd, err := copyDescriptor(c)
	if err != nil {
		return -1, err
	}
	_ = c.Close()
	if reserve.Check(fd) == nil {
		return fd, nil
	}
	// The copy is of the reserve, since there were two for a moment.
	low, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fd, nil
	}
	_ = unix.Close(fd)
	return low, nil
}

func copyDescriptor(c any) (int, error) {
	raw, err := rawOf(c)
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = dupErr
	}
	if err != nil {
		return -1, fmt.Errorf("take over the descriptor: %w", err)
	}
	return fd, nil
}

func rawOf(c any) (syscall.RawConn, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, errors.New("connection without a descriptor")
	}
	return sc.SyscallConn()
}
