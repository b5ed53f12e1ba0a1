package tunnel

import (
	"fmt"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// TCP makes a Conn of a TCP connection.
func TCP(c *net.TCPConn) Conn { return &tcpConn{TCPConn: c} }

type tcpConn struct {
	*net.TCPConn
	tcpSocket
	pair atomic.Pointer[pair] // once it has taken over
}

var _ endpointFD = (*tcpConn)(nil)

// Abort closes with a linger time of zero, which is how TCP is told to send a
// reset instead of a FIN (socket(7), SO_LINGER).
func (c *tcpConn) Abort() {
	if p := c.pair.Load(); p != nil {
		p.abort(fmt.Errorf("connection aborted: %w", net.ErrClosed))
		return
	}
	_ = c.SetLinger(0)
	_ = c.Close()
}

// awaitReset waits for a reset that comes after the peer's FIN. The reader has
// nothing more to read then, so without this a client that went away would be
// noticed only at the next write to it, which may never come.
func (c *tcpConn) awaitReset() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil // closed by us
	}
	err = raw.Read(func(fd uintptr) bool { return c.wasReset(int(fd)) })
	if err != nil {
		return nil // closed by us
	}
	return fmt.Errorf("connection with %s: %w", c.RemoteAddr(), syscall.ECONNRESET)
}

func (c *tcpConn) detach(p *pair) (int, error) {
	fd, err := takeDescriptor(c.TCPConn)
	if err == nil {
		c.pair.Store(p)
	}
	return fd, err
}

func (c *tcpConn) release(fd int, err error) {
	if fd < 0 {
		_ = c.SetLinger(0)
		_ = c.TCPConn.Close()
		return
	}
	c.tcpSocket.release(fd, err)
}

// tcpSocket is a TCP connection that is nothing but a descriptor.
type tcpSocket struct{ fd int }

var _ endpointFD = tcpSocket{}

func (s tcpSocket) detach(*pair) (int, error) { return s.fd, nil }
func (tcpSocket) open(int) error              { return nil }
func (tcpSocket) moved(read, written int)     {}

func (tcpSocket) judgeEnd(err error) error {
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

func (tcpSocket) endWrite(fd int) error {
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}

// wasReset asks for the error that a reset leaves (ECONNRESET, or EPIPE when it
// comes after the peer's FIN; tcp_reset in net/ipv4/tcp_input.c). The state of
// the connection would not do: after an orderly end in both directions it is
// closed too.
func (tcpSocket) wasReset(fd int) bool {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	return err != nil || errno != 0
}

func (tcpSocket) release(fd int, err error) {
	if err != nil {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	_ = unix.Close(fd)
}
