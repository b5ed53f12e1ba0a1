package announce

import (
	"context"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Reverse is a listener in the guest whose connections come to the host.
type Reverse struct {
	// Listen is where: one TCP address of the guest, or a unix socket.
	Listen wire.Target
	// Dial connects to the service on the host, for a connection that the guest
	// has accepted.
	Dial func(context.Context) (relay.Conn, error)
	// Ended is called at the end of each connection, with why Dial or the
	// connection failed, or nil. What the client in the guest did is an
	// [relay.ErrClient].
	Ended func(error)
	// State is told how the listener is, first and at every change. It may be
	// called once more after the listener was taken back.
	State func(state wire.ReverseState, reason string)
	// Counters count the bytes of all its connections.
	Counters *relay.Counters
}
