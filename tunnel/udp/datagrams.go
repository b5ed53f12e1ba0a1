// Package udp carries datagrams over one stream: flows, which are numbers, with a socket
// for each at either end. What there is no room for is dropped and counted. It knows
// nothing of links and rules.
package udp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sync/errgroup"
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

// Send queues a datagram for an address in the guest. It never waits, and keeps
// nothing of payload. It reports whether there was room.
func (d *Datagrams) Send(flow uint32, to netip.AddrPort, payload []byte) bool {
	if len(payload) > wire.MaxDatagram {
		return false
	}
	return d.queue.add(wire.DatagramFrame{Kind: wire.DatagramToGuest, Flow: flow, Target: to, Payload: payload})
}

// End tells the guest that a flow is not needed any more.
func (d *Datagrams) End(flow uint32) { d.queue.end(flow) }

// Handler is told what comes from a datagram stream. Its functions are
// called one at a time, must not wait, and must keep nothing of payload.
type Handler struct {
	// Reply is a datagram that answers a flow. It reports whether there is that
	// flow: what is for nobody is taken at a bounded rate only.
	Reply func(flow uint32, payload []byte) bool
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
	return serve(ctx, conn, d.queue, on.work(), func(f wire.DatagramFrame) (useful bool, err error) {
		switch f.Kind {
		case wire.DatagramToHost:
			return on.Reply(f.Flow, f.Payload), nil
		case wire.DatagramTrouble:
			on.Trouble(f.Flow, f.Lost, f.Reason)
			return false, nil
		}
		return false, fmt.Errorf("guest sent a datagram frame of kind %d, which only hosts send", f.Kind)
	})
}

// serve writes what is queued and hands over what arrives. What is of no use
// to anybody may take some processor time; beyond that the stream is not read for a
// while.
func serve(ctx context.Context, conn Conn, q *queue, work *budget.Budget, handle func(wire.DatagramFrame) (useful bool, err error)) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { <-gctx.Done(); conn.Abort(); return nil })
	g.Go(func() error { return q.write(gctx, conn) })
	g.Go(func() error {
		frames := wire.NewDatagramReader(conn)
		for {
			f, err := frames.Next()
			if err != nil {
				return err
			}
			began, useful := clock.Now(), false
			if f.Kind != 0 {
				if useful, err = handle(f); err != nil {
					return err
				}
			}
			if useful {
				continue
			}
			work.Spend(budget.MessageCost + clock.Now() - began)
			if err := work.Wait(gctx.Done()); err != nil {
				return err
			}
		}
	})
	err := g.Wait()
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("ended")
	}
	return fmt.Errorf("datagram stream: %w", err)
}
