package sockio

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn reads and writes the socket of a connection of package net, or of a file, whose deadlines and whose end
// hold here too.
type Conn struct {
	of  io.ReadWriter
	raw syscall.RawConn // nil where there is no socket: of tells why
}

// Socket is a connection of package net, or a file.
type Socket interface {
	io.ReadWriter
	syscall.Conn
}

// New returns a Conn for the socket of a connection, which stays that connection's.
func New(of Socket) Conn {
	raw, err := of.SyscallConn()
	if err != nil {
		return Conn{of: of}
	}
	return Conn{of, raw}
}

// Read is as of [net.Conn]. What the kernel says of a failure is returned as it is.
func (c Conn) Read(b []byte) (n int, err error) {
	if c.raw == nil || len(b) == 0 {
		return c.of.Read(b)
	}
	ended := c.raw.Read(func(fd uintptr) bool {
		n, err = Receive(int(fd), b)
		return err != unix.EAGAIN
	})
	switch {
	case ended != nil:
		return c.of.Read(b) // which tells of deadlines and ends as others know it
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Wait returns once there is something to read, which it leaves to be read.
func (c Conn) Wait() error {
	if c.raw == nil {
		return syscall.EINVAL
	}
	var b [1]byte
	return c.raw.Read(func(fd uintptr) bool {
		_, err := Peek(int(fd), b[:])
		return err != unix.EAGAIN
	})
}

// AwaitReset is for who has read the end. It returns once the connection is reset or closed, or its read deadline has
// passed, which is the error.
func (c Conn) AwaitReset() error {
	if c.raw == nil {
		return syscall.EINVAL
	}
	err := c.raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, _ := unix.Poll(p, 0)
		return n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	if err == nil {
		err = unix.ECONNRESET
	}
	return err
}

// Quiet reports whether the other end has sent nothing that was not read yet, and has not ended the connection. It
// does not wait.
func (c Conn) Quiet() bool {
	if c.raw == nil {
		return false
	}
	quiet := false
	var b [1]byte
	_ = c.raw.Control(func(fd uintptr) {
		_, err := Peek(int(fd), b[:])
		quiet = err == unix.EAGAIN
	})
	return quiet
}

// Write is as of [net.Conn].
func (c Conn) Write(b []byte) (n int, err error) {
	if c.raw == nil {
		return c.of.Write(b)
	}
	for n < len(b) {
		ended := c.raw.Write(func(fd uintptr) bool {
			var sent int
			sent, err = Send(int(fd), b[n:])
			n += max(sent, 0)
			return err != unix.EAGAIN
		})
		switch {
		case ended != nil:
			rest, err := c.of.Write(b[n:]) // likewise
			return n + rest, err
		case err != nil:
			return n, err
		}
	}
	return n, nil
}
