package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// errReset is the end of a connection of which a direction has not ended by itself.
var errReset = errors.New("the connection was reset")

// join copies both ways. With an error the connection is reset; so it is where this program is
// killed, because it is a [relay.Conn]: what was cut looks complete to nobody.
func join(ctx context.Context, conn relay.Conn, in io.Reader, out io.WriteCloser) error {
	ended := make(chan error, 3)
	go func() {
		_, err := io.Copy(conn, in)
		if err == nil {
			err = conn.CloseWrite()
		}
		ended <- named("send", err)
	}()
	go func() {
		_, err := io.Copy(out, conn)
		if err == nil {
			err = out.Close()
		}
		ended <- named("receive", err)
		if err == nil {
			if err = conn.AwaitReset(); err != nil { // which sending would notice at the next byte only
				ended <- named("send", err)
			}
		}
	}()
	for range 2 {
		select {
		case <-ctx.Done():
			conn.Abort()
			return errors.New("interrupted")
		case err := <-ended:
			if err != nil {
				conn.Abort()
				return err
			}
		}
	}
	return conn.Close()
}

// named says what was not finished.
func named(what string, err error) error {
	if err == nil {
		return nil
	}
	_, ofFile := errors.AsType[*fs.PathError](err)
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) && !ofFile {
		err = errReset
	}
	return fmt.Errorf("%s: %w", what, err)
}
