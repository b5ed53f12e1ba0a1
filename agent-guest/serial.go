package guestagent

import (
	"context"
	"errors"
	"io"
	"io/fs"
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
		// The host went, perhaps in the middle of what it said: what it told an agent that is no more waits in
		// the line for the next one.
		left := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !left && err.Error() != logged {
			logged = err.Error()
			level := slog.LevelWarn
			if errors.Is(err, fs.ErrNotExist) {
				level = slog.LevelInfo // as at every boot that starts the agent early
			}
			log.Log(ctx, level, "serial port", "path", path, "err", err)
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
