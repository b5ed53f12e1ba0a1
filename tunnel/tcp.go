package tunnel

import (
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// TCP makes a Conn of a TCP connection.
func TCP(c *net.TCPConn) Conn {
	raw, err := c.SyscallConn()
	if err != nil {
		raw = nil // closed already; the first Read says so
	}
	return &tcpConn{TCPConn: c, raw: raw}
}

type tcpConn struct {
	*net.TCPConn
	raw syscall.RawConn
}

// Abort closes with a linger time of zero, which is how TCP is told to send a
// reset instead of a FIN (socket(7), SO_LINGER).
func (c *tcpConn) Abort() {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (c *tcpConn) descriptor() syscall.RawConn { return c.raw }
func (c *tcpConn) moved(read, written int)     {}
func (c *tcpConn) endOfRead(err error) error   { return err }
func (c *tcpConn) prepareRead() error          { return nil }

// awaitReset waits for a reset that comes after the peer's FIN. The reader has
// nothing more to read then, so without this a client that went away would be
// noticed only at the next write to it, which may never come.
func (c *tcpConn) awaitReset() error {
	if c.raw == nil {
		return nil
	}
	var reset error
	err := c.raw.Read(func(fd uintptr) bool {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			reset = fmt.Errorf("tcp state: %w", err)
			return true
		}
		if info.State == tcpClose {
			reset = fmt.Errorf("connection with %s: %w", c.RemoteAddr(), syscall.ECONNRESET)
			return true
		}
		return false
	})
	if err != nil {
		return nil // closed by us
	}
	return reset
}

// tcpClose is TCP_CLOSE of linux/tcp_states.h: the state after a reset.
const tcpClose = 7
