package serve

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// Dial connects to the service for a client that is in this process and has no socket. It is a client as
// others are: it counts, and what was cut is no end to it. The answer of the guest is the first thing that it
// reads. The error is [errors.ErrUnsupported] where only [Service.Serve] does what is to be done, because the
// rule wants more than a connection, or because it goes over the bridge.
func (s *Service) Dial(ctx context.Context) (net.Conn, error) {
	m, r := s.manner.Load(), s.guest.Route()
	if m.proxyProtocol || m.hold > 0 || !r.Linked() || s.BridgeFirst(r) {
		return nil, errors.ErrUnsupported
	}
	if !s.refused.pass() {
		return nil, errRefusedOften
	}
	conn, err := s.openStream(ctx, r.Link, s.target(true), nil)
	if err != nil {
		return nil, errors.ErrUnsupported // which may have another way, and else says why there is none
	}
	s.Total.Add(1)
	s.Active.Add(1)
	return &client{Conn: conn, service: s}, nil
}

// client is a connection of a client in this process.
type client struct {
	relay.Conn
	service      *Service
	failed, over sync.Once
	limited      atomic.Bool // by a deadline of its own
}

// SetDeadline is that of [net.Conn]. That it has passed is nothing that went wrong.
func (c *client) SetDeadline(t time.Time) error {
	c.limited.Store(!t.IsZero())
	return c.Conn.SetDeadline(t)
}

func (c *client) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.service.Counters.In.Add(uint64(n))
	c.note(err)
	return n, err
}

func (c *client) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.service.Counters.Out.Add(uint64(n))
	c.note(err)
	return n, err
}

// Quiet reports whether the service has said nothing that was not read yet, and has not ended the connection.
func (c *client) Quiet() bool {
	guest, ok := c.Conn.(interface{ Quiet() bool })
	return ok && guest.Quiet()
}

// note takes in what went wrong, and is not the client's own doing.
func (c *client) note(err error) {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return
	}
	if c.limited.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	c.failed.Do(func() {
		c.service.refused.note(err)
		if !Ordinary(err) {
			c.service.Errors.Note(err)
		}
	})
}

// Close ends the connection.
func (c *client) Close() error {
	c.over.Do(func() { c.service.Active.Add(-1) })
	return c.Conn.Close()
}
