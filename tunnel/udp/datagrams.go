// Package udp carries datagrams over one stream: flows, which are numbers, with a socket
// for each at either end. What there is no room for is dropped and counted. It knows
// nothing of links and rules.
package udp

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Conn is a stream that carries datagrams: one opened to [wire.UDPTarget].
type Conn interface {
	io.ReadWriter
	// Abort resets the stream, and unblocks who reads and writes.
	Abort()
}

// Datagrams is the host's end of a datagram stream, which carries the datagrams
// of any number of flows. A flow is a number that the host gives; the guest has a
// socket of its own for each, so that answers come back by it.
type Datagrams struct {
	queue *queue
}

// NewDatagrams returns an end that queues what is sent until it is run.
func NewDatagrams() *Datagrams { return &Datagrams{newQueue()} }

// Add queues a datagram for an address in the guest, to go out with Flush. It never
// waits, and keeps nothing of payload. It reports whether there was room.
func (d *Datagrams) Add(flow uint32, to netip.AddrPort, payload []byte) bool {
	if len(payload) > wire.MaxDatagram {
		return false
	}
	return d.queue.add(wire.DatagramFrame{Kind: wire.DatagramToGuest, Flow: flow, Target: to, Payload: payload})
}

// Flush has what was added go out.
func (d *Datagrams) Flush() { d.queue.flush() }

// End tells the guest that a flow is not needed any more.
func (d *Datagrams) End(flow uint32) { d.queue.end(flow) }

// Handler is told what comes from a datagram stream. Its functions are
// called one at a time and must not wait.
type Handler struct {
	// Reply is datagrams that answer a flow: [Split] divides b, of which nothing must be kept
	// but by what is added to out. It returns how many are known to be of no use: what is for nobody is
	// taken at a bounded rate only.
	Reply func(flow uint32, b []byte, size int, out *Burst) (useless int)
	// Flush is called when the replies that came at once have been handed over; nil for nobody.
	Flush func()
	// Trouble is that the guest lost datagrams of a flow, in either
	// direction, or that its service refused one, and why.
	Trouble func(flow, lost uint32, reason string)
	// Budget bounds what is of no use; nil for a budget of its own.
	Budget *budget.Budget
}

func (h *Handler) work() *budget.Budget {
	if h.Budget == nil {
		return budget.New(budget.Link)
	}
	return h.Budget
}

// Run serves conn until ctx or the stream ends,
// and resets it then. It returns nil if ctx ended.
func (d *Datagrams) Run(ctx context.Context, conn Conn, on Handler) error {
	return serve(ctx, conn, d.queue, on.work(), func(f wire.DatagramFrame, out *Burst) (useless int, err error) {
		switch f.Kind {
		case wire.DatagramToHost:
			return on.Reply(f.Flow, f.Payload, len(f.Payload), out), nil
		case wire.DatagramTrouble:
			on.Trouble(f.Flow, f.Lost, f.Reason)
			return 1, nil
		}
		return 0, fmt.Errorf("guest sent a datagram frame of kind %d, which only hosts send", f.Kind)
	})
}
