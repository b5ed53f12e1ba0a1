package relay

import (
	"net"
	"sync/atomic"

	"github.com/rum-vm/rum-agent/tunnel/latency"
)

// Conn is one end of what [Relay] joins: a [Stream], or a connection wrapped
// by [TCP] or [Unix].
type Conn interface {
	net.Conn
	// CloseWrite ends the sending direction; the other end reads EOF and may
	// still answer.
	CloseWrite() error
	// Abort resets the connection: the other end sees ECONNRESET, never EOF. On a
	// unix socket closing is all there is.
	Abort()

	// Moved accounts for bytes that went around Read and Write.
	Moved(read, written int)
	// AwaitReset is called after reading ended with io.EOF. It blocks until
	// the connection is reset, and returns why, or is closed locally, and
	// returns nil.
	AwaitReset() error
	// Drain waits, within a bound, until what was written has been sent. It is
	// called before Abort, and by who has written last.
	Drain()
}

// Counters count the bytes of forwarded connections. The zero value is ready;
// many relays may share one.
type Counters struct {
	// In is bytes from the guest to the client, Out from the client to the
	// guest.
	In, Out atomic.Uint64
	// Dials is how long it took until the service had taken each connection.
	Dials latency.Counter
}
