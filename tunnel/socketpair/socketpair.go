// Package socketpair makes connections within a process.
package socketpair

import (
	"context"
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// New is socketpair(2). The second end is of those that [reserve.CheckConn] lets be.
func New(context.Context) (theirs, ours net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end of a pair")
		c, err2 := net.FileConn(f)
		_ = f.Close()
		ends[i], err = c, errors.Join(err, err2)
	}
	if err == nil {
		err = reserve.CheckConn(ends[1])
	}
	if err == nil {
		return ends[0], ends[1], nil
	}
	for _, c := range ends {
		if c != nil {
			_ = c.Close()
		}
	}
	return nil, nil, err
}
