package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TCP makes a Conn of a TCP connection, best of one that [ControlTCP] has prepared.
// One within this machine sends unpaced from here on.
func TCP(c *net.TCPConn) Conn {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			prepareTCP(int(fd))
			if staysHere(c) {
				sendUnpaced(int(fd))
			}
		})
	}
	return &socketConn{netSocket: c}
}

// staysHere tells whether a connection is between two programs of one machine. One
// that has already ended may have no addresses.
func staysHere(c *net.TCPConn) bool {
	local, okLocal := c.LocalAddr().(*net.TCPAddr)
	remote, okRemote := c.RemoteAddr().(*net.TCPAddr)
	return okLocal && okRemote && (remote.IP.IsLoopback() || remote.IP.Equal(local.IP))
}

// Unix makes a Conn of a connection on a unix socket. There is no reset on such a
// socket: Abort closes, and the other end reads ECONNRESET only where something
// it wrote had not been read, else EOF.
func Unix(c *net.UnixConn) Conn { return &socketConn{netSocket: c} }

// Raw makes a Conn of a connection of any kind that has a descriptor, whose end is as the kernel
// tells it. If it fails, the connection is left as it was.
func Raw(c io.Closer) (Conn, error) {
	d, err := NewDescriptor(c)
	if err != nil {
		return nil, err
	}
	return &socketConn{netSocket: d.conn()}, nil
}

// netSocket is a *net.TCPConn or a *net.UnixConn.
type netSocket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

type socketConn struct {
	netSocket
	Socket

	detaching sync.Mutex // held while a pair takes over, and while the connection is aborted
	pair      *Pair      // once it has taken over, guarded by detaching

	writing  sync.Mutex // held during a write
	unproved bool       // a write took the kernel's word for a reset: an EOF is none
}

var _ FD = (*socketConn)(nil)

// Close is for where both directions have ended: what was written still arrives,
// and its end. Everything else is for Abort.
func (c *socketConn) Close() error {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { endOnClose(int(fd)) })
	}
	return c.netSocket.Close()
}

func (c *socketConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, err := c.netSocket.Write(b)
	if err != nil && !errors.Is(err, unix.EPIPE) {
		c.unproved = true
	}
	return n, err
}

// proveEOF tells whether what read as an EOF is one. The kernel tells once that a
// connection was reset, and a write may be who it told (see [Pair.refused]).
func (c *socketConn) proveEOF() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	gone := false
	if err := raw.Control(func(fd uintptr) { gone = hangup(int(fd))&unix.POLLHUP != 0 }); err != nil {
		return err
	}
	if !gone {
		return nil // and a write may be waiting
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.unproved {
		return errReset
	}
	return nil
}

func (c *socketConn) Drain() {
	left := c.unsent()
	for d := NewDrain(uint64(left)); left > 0 && !d.Over(uint64(left)); left = c.unsent() {
		time.Sleep(DrainTick)
	}
}

// unsent is 0 once the connection is closed.
func (c *socketConn) unsent() (n int) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n = unsent(int(fd)) })
	}
	return n
}

func (c *socketConn) Abort() {
	// The pair calls Detach and Release under its lock, so it is aborted outside of this one.
	if p := c.abortUndetached(); p != nil {
		p.abort(fmt.Errorf("connection aborted: %w", net.ErrClosed))
	}
}

// abortUndetached resets the connection if no pair has it, and returns the pair otherwise.
func (c *socketConn) abortUndetached() *Pair {
	c.detaching.Lock()
	defer c.detaching.Unlock()
	if c.pair != nil {
		return c.pair
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { resetOnClose(int(fd)) })
	}
	_ = c.netSocket.Close()
	return nil
}

// AwaitReset waits for a reset that comes after the peer's end of sending. The
// reader has nothing more to read then, so without this a client that went away
// would be noticed only at the next write to it, which may never come.
func (c *socketConn) AwaitReset() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil // closed by us
	}
	if err := raw.Read(func(fd uintptr) bool { return c.wasReset(int(fd)) }); err != nil {
		return nil // closed by us
	}
	return fmt.Errorf("connection with %s: %w", c.RemoteAddr(), syscall.ECONNRESET)
}

// Detach is of [FD].
func (c *socketConn) Detach(p *Pair) (*Descriptor, error) {
	c.detaching.Lock()
	defer c.detaching.Unlock()
	d, err := NewDescriptor(c.netSocket)
	if err == nil {
		c.Socket.d, c.pair = d, p
	}
	return d, err
}

// Release is of [FD].
func (c *socketConn) Release(d *Descriptor, err error) {
	if d == nil {
		c.Abort()
		return
	}
	c.Socket.Release(d, err)
}

// Socket is a connection that is nothing but a descriptor.
type Socket struct{ d *Descriptor }

func newSocket(fd int) Socket { return Socket{&Descriptor{fd: fd}} }

// Abort resets the connection; aborting it again does nothing.
func (s Socket) Abort() { s.d.Abort() }

var _ FD = Socket{}

// Detach is of [FD].
func (s Socket) Detach(*Pair) (*Descriptor, error) { return s.d, nil }

// Moved is of [FD]; nobody counts.
func (Socket) Moved(read, written int) {}

// Open is of [FD]: all that is read is the connection's own.
func (Socket) Open(b []byte, _ error) ([]byte, error) { return b, nil }

// ProveEnd is of [FD]: the kernel's word is enough.
func (Socket) ProveEnd(err error) error {
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

// EndWrite leaves it to the close that follows if nothing else can.
func (Socket) EndWrite(last bool) (shut bool) { return !last }

// wasReset asks for the error that a reset leaves: on TCP ECONNRESET, or EPIPE
// when it comes after the peer's FIN (tcp_reset in net/ipv4/tcp_input.c), on a
// unix socket ECONNRESET when the peer closed with something unread
// (unix_release_sock in net/unix/af_unix.c). The state of a TCP connection would
// not do: after an orderly end in both directions it is closed too.
func (Socket) wasReset(fd int) bool {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	return err != nil || errno != 0
}

// Release is of [FD].
func (s Socket) Release(_ *Descriptor, err error) {
	if err == nil {
		s.d.end()
	} else {
		s.d.Abort()
	}
}
