package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path a unix socket can have: sun_path of
// unix(7) holds 108 bytes with the terminating zero.
const maxSocketPath = 107

// InUseError says that a living agent answers at the socket already.
type InUseError struct {
	Path string
	PID  int // of the agent; 0 when the kernel does not tell
}

func (e *InUseError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("another agent answers at %s", e.Path)
	}
	return fmt.Sprintf("another agent (pid %d) answers at %s", e.PID, e.Path)
}

// Listen opens the control socket at path with mode 0600. The socket of an
// agent that is gone is replaced; that of a living one gives *InUseError.
// Closing the listener removes the socket.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket path %s is longer than %d bytes", path, maxSocketPath)
	}
	// Between the look at an old socket and the new one in its place no other
	// agent may do the same.
	dir, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer unlock()

	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: private}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return l, nil
}

// private gives the socket its mode before it has a name: bind(2) creates the
// file with the mode of the descriptor, so at no time can others connect.
func private(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
	return errors.Join(cerr, err)
}

// removeStale removes the socket at path if nobody listens there.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is not a socket; it is left alone", path)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		defer c.Close()
		inUse := &InUseError{Path: path}
		if cred, err := listenerOf(c); err == nil {
			inUse.PID = int(cred.Pid)
		}
		return inUse
	case errors.Is(err, unix.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the socket of an agent that is gone: %w", err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return fmt.Errorf("find out who listens at the control socket: %w", err)
	}
}
