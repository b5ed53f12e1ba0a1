package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// networkUnix is the network of a target that is a unix stream socket.
const networkUnix = "unix"

// MaxSocketPath is what fits in sockaddr_un with its final zero, in bytes (unix(7)).
const MaxSocketPath = 107

// UnixTarget is the unix stream socket at an absolute path of the guest.
func UnixTarget(path string) Target { return Target{Network: networkUnix, Path: path} }

// checkSocketPath reports what is wrong with the path of a socket.
func checkSocketPath(p string) error {
	switch {
	case len(p) > MaxSocketPath:
		return fmt.Errorf("socket path of %d bytes, at most %d fit", len(p), MaxSocketPath)
	case !path.IsAbs(p):
		return fmt.Errorf("socket path %q is not absolute", p)
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("socket path %q holds a zero byte", p)
	}
	return nil
}

// backlogPause is the time between two attempts on a socket whose queue is full.
// TCP waits in the kernel then, a unix socket that must not block says EAGAIN.
const backlogPause = 10 * time.Millisecond

// dialSocket connects to a unix socket until ctx ends.
func dialSocket(ctx context.Context, path string) (*net.UnixConn, error) {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, networkUnix, path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("dial unix %s: queue is full: %w", path, ctx.Err())
		case <-time.After(backlogPause):
		}
	}
}

// Unix makes a Conn of a connection on a unix socket. There is no reset on such a
// socket: Abort closes, and the other end reads ECONNRESET only where something
// it wrote had not been read, else EOF.
func Unix(c *net.UnixConn) Conn { return &unixConn{UnixConn: c} }

type unixConn struct {
	*net.UnixConn
	unixSocket
	pair atomic.Pointer[pair] // once it has taken over
}

var _ endpointFD = (*unixConn)(nil)

func (c *unixConn) Abort() {
	if p := c.pair.Load(); p != nil {
		p.abort(fmt.Errorf("connection aborted: %w", net.ErrClosed))
		return
	}
	_ = c.Close()
}

// awaitReset waits for the other end to close with something unread, after it
// had ended its sending.
func (c *unixConn) awaitReset() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil // closed by us
	}
	if err := raw.Read(func(fd uintptr) bool { return c.wasReset(int(fd)) }); err != nil {
		return nil // closed by us
	}
	return fmt.Errorf("connection on a unix socket: %w", syscall.ECONNRESET)
}

func (c *unixConn) detach(p *pair) (int, error) {
	fd, err := takeDescriptor(c.UnixConn)
	if err == nil {
		c.pair.Store(p)
	}
	return fd, err
}

func (c *unixConn) release(fd int, err error) {
	if fd < 0 {
		_ = c.UnixConn.Close()
		return
	}
	c.unixSocket.release(fd, err)
}

// unixSocket is what a pair does with the descriptor of a unix socket.
type unixSocket struct{}

func (unixSocket) open(int) error           { return nil }
func (unixSocket) moved(read, written int)  {}
func (unixSocket) judgeEnd(err error) error { return tcpSocket{}.judgeEnd(err) }
func (unixSocket) endWrite(fd int) error    { return tcpSocket{}.endWrite(fd) }
func (unixSocket) release(fd int, _ error)  { _ = unix.Close(fd) }

// wasReset looks at the error that closing with something unread leaves at the
// other end (unix_release_sock in net/unix/af_unix.c). An end that was closed
// without is no error: what it sent is to be answered, to nobody.
func (unixSocket) wasReset(fd int) bool {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	return err != nil || code != 0
}
