package control

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// StrangerError says that the agent at a socket is another user's, and who asks wants to hear
// one of their own alone. It is an [fs.ErrPermission].
type StrangerError struct {
	Path string
	UID  uint32
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("the agent at %s is run by user %d, not by %d, and names no files to that user", e.Path, e.UID, os.Geteuid())
}

func (e *StrangerError) Unwrap() error { return fs.ErrPermission }

// NewOwnClient is [NewClient] for an agent that the user who asks runs. The error of asking
// another's is a [*StrangerError].
func NewOwnClient(path string) *Client {
	c := NewClient(path)
	c.own = true
	return c
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil || !c.own {
		return conn, err
	}
	cred, err := listenerOf(conn)
	if err == nil && int(cred.Uid) != os.Geteuid() {
		err = &StrangerError{c.path, cred.Uid}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// listenerOf is who listens at the other end of a connection: the process that did when it
// called listen(2), whoever owns the file of the socket.
func listenerOf(c net.Conn) (cred *unix.Ucred, err error) {
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := rc.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if controlErr != nil {
		return nil, controlErr
	}
	return cred, err
}
