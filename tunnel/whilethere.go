package tunnel

import (
	"context"
	"time"
)

// WhileThere returns a context that ends when a client's connection is reset, while
// nothing reads it: nobody waits any more for what is done for it. stop is to be
// called before it is read, and by who is done.
func WhileThere(ctx context.Context, client Conn) (there context.Context, stop func()) {
	there, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if client.awaitReset() != nil {
			cancel()
		}
	}()
	return there, func() {
		_ = client.SetReadDeadline(longAgo)
		<-done
		_ = client.SetReadDeadline(time.Time{})
		cancel()
	}
}
