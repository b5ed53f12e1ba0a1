package serve

import (
	"context"
	"net"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Link is how connections reach a VM through its guest agent.
type Link struct {
	// Open starts a connection to the target in the guest, sends early along,
	// and tells which path it takes. It does not keep early.
	Open func(ctx context.Context, t wire.Target, early []byte) (guest relay.Conn, path string, err error)
	// RelayNow is Open and then [relay.Relay], without waiting for anything. It
	// reports false, having done nothing, if that cannot be; nil is for never.
	RelayNow func(c *relay.Client, t wire.Target, early []byte, n *relay.Counters, done func(error)) bool
	// HandOver connects to the target in the guest and gives the connection away: nothing of it
	// is counted or bounded here. The error is a [*wire.AnswerError] if the guest could not
	// connect; after any other, Open may.
	HandOver func(ctx context.Context, t wire.Target) (net.Conn, error)
	// Silent reports that the guest gives no sign of life, so that a new
	// connection had better go another way.
	Silent func() bool
	// Path is what Open is expected to take.
	Path string
	// Reverse makes the listeners in the guest be these. It does not wait. nil
	// where there can be none.
	Reverse func([]*announce.Reverse) error
	// Tell tells the guest what became of its ports. It does not wait. nil where
	// that cannot be told.
	Tell func([]wire.PortState)
}

// Route is how a VM is reached now. It is replaced, never changed.
type Route struct {
	// Link is nil while there is none.
	Link *Link
	policy.Reach
	// DialBridge is nil where this host connects to the bridge address.
	DialBridge DialBridge
}

// DialBridge has another host connect to a TCP port at the bridge address of a VM, which is on one of its networks.
type DialBridge func(ctx context.Context, port uint16) (relay.Conn, error)

// Linked reports whether a new connection had better go through the link.
func (r *Route) Linked() bool { return r.Link != nil && !r.Link.Silent() }
