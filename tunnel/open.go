package tunnel

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// rawDialTimeout bounds a raw connection's dial; then the stream goes through
// yamux. vsock's own limit is the same.
const rawDialTimeout = 2 * time.Second

// Open opens a stream to a target in the guest. early is what the client has
// sent already; it travels along. Open does not wait for the guest's answer:
// the stream's first Read does. A failure is one of the link, not of the target.
func (l *Link) Open(ctx context.Context, t wire.Target, early []byte) (*stream.Stream, error) {
	if l.endpoint.Many() {
		request := wire.OpenRequest{Target: t, Reuse: !l.endpoint.Sockets() && (t.Network == wire.NetworkTCP || t.Network == wire.NetworkUnix)}
		for {
			c, ok := l.pool.Take()
			if !ok {
				break
			}
			if c.Stale() {
				c.Close()
				continue
			}
			if s, err := l.openOn(c.Conn(), nil, request, early); err == nil {
				return s, nil // else it had gone stale
			}
		}
		if conn, err := l.dialRaw(ctx); err == nil {
			if s, err := l.openOn(conn, l.frame(wire.FrameRaw), request, early); err == nil {
				return s, nil
			}
		}
	}
	conn, err := l.session.OpenWithin(ctx)
	if err != nil {
		return nil, fmt.Errorf("open a stream to %v: %w", t, err)
	}
	s, err := l.openOn(conn, nil, wire.OpenRequest{Target: t}, early)
	if err != nil {
		return nil, fmt.Errorf("open a stream to %v: %w", t, err)
	}
	return s, nil
}

// RelayNow opens a stream to a target and relays between it and a client, as
// Open and [relay.Relay] do, without waiting for anything. It reports false, having
// done nothing, if that cannot be.
func (l *Link) RelayNow(c *relay.Client, t wire.Target, early []byte, n *relay.Counters, done func(error)) bool {
	if !l.endpoint.Sockets() {
		return false
	}
	for {
		ready, ok := l.pool.Take()
		if !ok {
			return false
		}
		if s := l.openNow(ready.Descriptor(), t, early); s != nil {
			s.CountDial(&n.Dials)
			relay.Join(c.Socket, s, n, done)
			return true
		}
	}
}

// newStream makes a stream, which nothing carries yet, and completes the request that
// opens it, after what is to come before.
func (l *Link) newStream(request wire.OpenRequest, before []byte) (*stream.Stream, []byte, error) {
	s := stream.New(l.nextID.Add(1), &l.ends)
	if request.Reuse {
		s.Reuse(func(c stream.Carrier) { l.ends.AwaitRelease(s, c) })
	}
	request.ID = s.ID()
	if kind := handshake.OrderTo(request.Target); kind != "" && request.Target.Check() == nil {
		request.Proof = l.orders.Sign(kind, request.Order())
	}
	first, err := request.Append(before)
	if err == nil {
		err = l.ends.Add(s)
	}
	return s, first, err
}

// openNow makes a stream of a raw connection that can be used again afterwards.
// It returns nil if the connection has gone stale, or the link has ended.
func (l *Link) openNow(raw *relay.Descriptor, t wire.Target, early []byte) *stream.Stream {
	s, first, err := l.newStream(wire.OpenRequest{Target: t, Reuse: true}, nil)
	if err != nil {
		raw.Close()
		return nil
	}
	s.Moved(0, len(early))
	s.ExpectAnswer()
	if s.AttachRaw(raw) != nil {
		return nil
	}
	first = append(first, early...)
	n, err := raw.Send(first)
	if err == nil && n < len(first) {
		err = io.ErrShortWrite
	}
	if err != nil {
		s.Fail(err)
		return nil
	}
	return s
}

// openOn makes a stream of a connection to the guest agent: what comes before
// the request, the request, and the client's first bytes go in one write.
func (l *Link) openOn(conn net.Conn, before []byte, request wire.OpenRequest, early []byte) (*stream.Stream, error) {
	s, first, err := l.newStream(request, before)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if err := s.Attach(conn); err != nil {
		return nil, err
	}
	if s.Path() == stream.PathRaw && !l.endpoint.HalfCloses() {
		s.NoHalfClose()
	}
	s.ExpectAnswer()
	if _, err := conn.Write(append(first, early...)); err != nil {
		s.Die(err)
		return nil, err
	}
	s.Moved(0, len(early))
	return s, nil
}

// dialRaw makes a raw connection; nothing has been written to it yet.
func (l *Link) dialRaw(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, rawDialTimeout)
	defer cancel()
	conn, err := endpoint.Dial(ctx, l.endpoint, nil)
	if err != nil {
		return nil, err
	}
	if err := reserve.CheckConn(conn); err != nil { // yamux needs none
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// frame is what a connection begins with that is one of this link's.
func (l *Link) frame(k wire.FrameKind) []byte {
	return wire.AppendFrame(make([]byte, 0, 128), k, l.agreed.Token[:])
}
