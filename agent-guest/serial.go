package guestagent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// serialRetry is the time between two looks at a port that has no host at its
// other end, or is not there yet.
const serialRetry = 200 * time.Millisecond

// serveSerial serves one link after the other on a virtio-serial port. A port
// that cannot be opened is tried again: its module may still be loading.
func serveSerial(ctx context.Context, server *tunnel.Server, path string, log *slog.Logger) error {
	logged := ""
	for {
		err := serveSerialOnce(ctx, server, path)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) && err.Error() != logged {
			logged = err.Error()
			log.Warn("serial port", "path", path, "err", err)
		}
		if err == nil {
			logged = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(serialRetry):
		}
	}
}

func serveSerialOnce(ctx context.Context, server *tunnel.Server, path string) error {
	port, err := endpoint.OpenSerial(path)
	if err != nil {
		return err
	}
	return server.ServeLine(ctx, port, true)
}
