package relay

import (
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Some of the descriptors that this process may have are kept from the connections
// it carries: for links, for a look into /proc, for who asks how things are. A
// client beyond that is reset. Left in the kernel's queue, it would look accepted
// to the other end, which would wait for an answer.

// reserveMost is how many are kept, a quarter of all where that is less.
const reserveMost = 32

// OutOfDescriptorsError says that a connection was reset for want of descriptors.
type OutOfDescriptorsError struct{ Limit uint64 }

func (e *OutOfDescriptorsError) Error() string {
	return fmt.Sprintf("the descriptors that this agent may open are in use (ulimit -n %d)", e.Limit)
}

// DescriptorLimit is how many descriptors this process may have.
func DescriptorLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // the usual soft limit
	}
	return limit.Cur
}

// outOfDescriptors tells whether a new descriptor is one of the reserve: the kernel
// gives the lowest number that is free.
func outOfDescriptors(fd int) error {
	limit := DescriptorLimit()
	if uint64(fd)+min(reserveMost, limit/4) < limit {
		return nil
	}
	return &OutOfDescriptorsError{limit}
}

// CheckDescriptors tells whether a new connection takes of the reserve, so that it
// should not be. One that has none takes none.
func CheckDescriptors(c any) (err error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = outOfDescriptors(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// lastDescriptor is for the moment when not even the reserve is left.
var lastDescriptor struct {
	mu sync.Mutex
	fd int // 0 for none
}

// stockLast sees to it that there is one.
func stockLast() {
	l := &lastDescriptor
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd != 0 {
		return
	}
	if fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC); err == nil {
		l.fd = fd
	}
}

// turnAway resets a client that cannot be accepted otherwise, and reports whether
// it did.
func turnAway(listener int) bool {
	l := &lastDescriptor
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd == 0 {
		return false
	}
	_ = unix.Close(l.fd)
	l.fd = 0
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err == nil {
		resetOnClose(fd)
		_ = unix.Close(fd)
	}
	if again, eerr := unix.Eventfd(0, unix.EFD_CLOEXEC); eerr == nil {
		l.fd = again
	}
	return err == nil
}
