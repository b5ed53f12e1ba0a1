package forward

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// earlySize is how much of what a client has sent already travels with the
// opening of a stream: a request of the usual protocols.
const earlySize = 4 << 10

var earlyBuffers = sync.Pool{New: func() any { return new([earlySize]byte) }}

// readEarly reads what the client has sent by now, without waiting. Nothing is
// not an error, and neither is the client's EOF: the relay will see that too.
func readEarly(c syscall.Conn, buf []byte) ([]byte, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n int
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, rerr = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			if !errors.Is(rerr, unix.EINTR) {
				return true
			}
		}
	})
	switch {
	case err != nil:
		return nil, err
	case errors.Is(rerr, unix.EAGAIN):
		return nil, nil
	case rerr != nil:
		// A socket tells of its reset once, so it must not be lost here.
		return nil, fmt.Errorf("client: %w", rerr)
	}
	return buf[:n], nil
}
