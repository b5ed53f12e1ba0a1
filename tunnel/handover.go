package tunnel

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// This file is raw connections that a host agent hands over to another program, which tells
// nobody how they end. In the guest each is joined to its service by what the kernel says of
// both; it is no link's any more, and ends at the latest with what accepts links.

// HandOver connects to a target in the guest, and returns the connection once the service has
// taken it: the caller's, which outlives the link. How it ends is as the kernel tells it.
// The error is [errors.ErrUnsupported] where connections are no sockets of their own or the guest
// agent is older, and a [*wire.AnswerError] if it could not connect.
func (l *Link) HandOver(ctx context.Context, t wire.Target) (net.Conn, error) {
	if !l.endpoint.Sockets() || !l.agreed.HandsOver() {
		return nil, errors.ErrUnsupported
	}
	conn, err := l.dialRaw(ctx)
	if err != nil {
		return nil, err
	}
	s, err := l.openOn(conn, l.frame(wire.FrameRaw), wire.OpenRequest{Target: t, HandOver: true}, nil)
	if err != nil {
		return nil, err
	}
	if err := s.Answer(ctx); err != nil {
		return nil, err
	}
	return s.HandOver()
}

var errOneConnection = errors.New("of one connection for all, none is handed over")

// accepting is one that accepts links, and what lasts no longer than that.
type accepting struct {
	ctx   context.Context
	conns *sync.WaitGroup // who waits holds one
}

// handOver joins a stream's connection to its target, and lets go of both.
func (l *guestLink) handOver(s *stream.Stream, target relay.Conn, to wire.Target) {
	// The link may be gone long before the end: nothing below is to keep it.
	server, in := l.server, l.in
	server.handedOver.Add(1) // before the link has one less
	conn, err := s.HandOver()
	var raw relay.Conn
	if err == nil {
		if raw, err = relay.Raw(conn); err != nil {
			_ = conn.Close()
		}
	}
	if err != nil {
		target.Abort()
		server.handedOver.Add(-1)
		return
	}
	in.conns.Add(1)
	stop := context.AfterFunc(in.ctx, func() { target.Abort(); raw.Abort() })
	relay.Relay(target, raw, new(relay.Counters), func(err error) {
		defer in.conns.Done()
		stop()
		server.handedOver.Add(-1)
		if err != nil {
			server.log().Debug("connection that was handed over ended", "target", to, "err", err)
		}
	})
}
