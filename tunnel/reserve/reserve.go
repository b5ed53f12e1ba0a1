// Package reserve keeps some of the descriptors that this process may have from the
// connections it carries: for links, for a look into /proc, for who asks how things are.
// A client beyond that is reset. Left in the kernel's queue, it would look accepted to
// the other end, which would wait for an answer.
package reserve

import (
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// most is how many are kept, a quarter of all where that is less.
const most = 32

// SpentError says that a connection was reset for want of descriptors. Limit is how many
// this process may have.
type SpentError struct{ Limit uint64 }

func (e *SpentError) Error() string {
	return fmt.Sprintf("the descriptors that this agent may open are in use (ulimit -n %d)", e.Limit)
}

// Limit is how many descriptors this process may have.
func Limit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // the usual soft limit
	}
	return limit.Cur
}

// Check returns a [SpentError] if a new descriptor is one of the reserve: the kernel gives
// the lowest number that is free.
func Check(fd int) error {
	limit := Limit()
	if uint64(fd)+min(most, limit/4) < limit {
		return nil
	}
	return &SpentError{limit}
}

// CheckConn is Check for a new connection, so that it should not be kept. One that has no
// descriptor takes none.
func CheckConn(c any) (err error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = Check(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// last is for the moment when not even the reserve is left.
var last struct {
	mu sync.Mutex
	fd int // 0 for none
}

// StockLast sees to it that there is one descriptor for [LendLast].
func StockLast() {
	last.mu.Lock()
	defer last.mu.Unlock()
	if last.fd == 0 {
		stock()
	}
}

// stock needs last.mu.
func stock() {
	if fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC); err == nil {
		last.fd = fd
	}
}

// LendLast calls f while there is room for one more descriptor, which f must have closed
// when it returns. It returns false, without a call, where there is none to lend.
func LendLast(f func() bool) bool {
	last.mu.Lock()
	defer last.mu.Unlock()
	if last.fd == 0 {
		return false
	}
	_ = unix.Close(last.fd)
	last.fd = 0
	defer stock()
	return f()
}
