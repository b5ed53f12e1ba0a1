package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"syscall"
	"time"
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

// The time between two attempts on a socket whose queue is full grows between
// these. TCP waits in the kernel then, a unix socket that must not block says
// EAGAIN.
const (
	backlogPauseMin = 10 * time.Millisecond
	backlogPauseMax = 320 * time.Millisecond
)

// DialSocket connects to a unix socket. Where its queue is full, DialSocket waits
// until ctx ends.
func DialSocket(ctx context.Context, path string) (*net.UnixConn, error) {
	for pause := backlogPauseMin; ; pause = min(2*pause, backlogPauseMax) {
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
		case <-time.After(pause):
		}
	}
}
