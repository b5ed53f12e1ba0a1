package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// takeDescriptor makes the descriptor of a connection ours: Go's poller lets go
// of it.
func takeDescriptor(c net.Conn) (int, error) {
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
	_ = c.Close()
	return fd, nil
}

func rawOf(c net.Conn) (syscall.RawConn, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, errors.New("connection without a descriptor")
	}
	return sc.SyscallConn()
}

// descriptor reads a descriptor without waiting.
type descriptor int

func (d descriptor) Read(b []byte) (int, error) {
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(int(d), b) })
	if err == nil && n == 0 {
		err = io.EOF
	}
	return max(n, 0), err
}
