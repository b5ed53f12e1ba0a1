package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// The time between two attempts on a socket whose queue is full grows between
// these. TCP waits in the kernel then, a unix socket that must not block says
// EAGAIN.
const (
	backlogPauseMin = 10 * time.Millisecond
	backlogPauseMax = 320 * time.Millisecond
)

// Socket connects to a unix socket. Where its queue is full, it waits until
// ctx ends.
func Socket(ctx context.Context, path string) (*net.UnixConn, error) {
	for pause := backlogPauseMin; ; pause = min(2*pause, backlogPauseMax) {
		conn, err := new(net.Dialer).DialContext(ctx, wire.NetworkUnix, path)
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
