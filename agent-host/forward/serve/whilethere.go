package serve

import (
	"context"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// whileThere returns a context that ends when a client's connection is reset, while
// nothing reads it: nobody waits any more for what is done for it. Its cause is then
// an [relay.ErrClient]. stop is to be called before the connection is read.
func whileThere(ctx context.Context, client relay.Conn) (there context.Context, stop func()) {
	there, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := client.AwaitReset(); err != nil {
			cancel(&relay.ClientError{Err: err})
		}
	}()
	return there, func() {
		_ = client.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = client.SetReadDeadline(time.Time{})
		cancel(nil)
	}
}
