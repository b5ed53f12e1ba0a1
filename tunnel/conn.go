package tunnel

import (
	"net"
	"sync/atomic"
	"syscall"
)

// Conn is one end of what [Relay] joins: a [*Stream], or a connection wrapped
// by [TCP].
type Conn interface {
	net.Conn
	// CloseWrite ends the sending direction; the other end reads EOF and may
	// still answer.
	CloseWrite() error
	// Abort resets the connection: the other end sees ECONNRESET, never EOF.
	Abort()

	// descriptor is what splice(2) works on; nil when there is none.
	descriptor() syscall.RawConn
	// moved accounts for bytes that went around Read and Write.
	moved(read, written int)
	// endOfRead turns what ended a read on the descriptor (io.EOF or an
	// error) into what Read would have returned.
	endOfRead(err error) error
	// prepareRead blocks until bytes on the descriptor are the connection's
	// own.
	prepareRead() error
	// awaitReset is called after reading ended with io.EOF. It blocks until
	// the connection is reset, and returns why, or is closed locally, and
	// returns nil.
	awaitReset() error
}

// Counters count the bytes of forwarded connections. The zero value is ready;
// many relays may share one.
type Counters struct {
	// In is bytes from the guest to the client, Out from the client to the
	// guest.
	In, Out atomic.Uint64
}
