package tunnel

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// reverseRetry is the time between two attempts to listen.
	reverseRetry = 500 * time.Millisecond
	// reverseSocketMode lets every user of the guest connect to a unix socket, as
	// to a port. Who is to be kept out is, by the directory that it is in.
	reverseSocketMode = 0o666
)

// reverseGuest is a link's listeners in the guest.
type reverseGuest struct {
	link    *guestLink
	ctx     context.Context // the session's
	lastID  atomic.Uint64
	clients chan struct{} // bounds connections

	// Used by the control stream's reader only.
	listeners map[uint64]*reverseListener
}

// apply makes the listeners be those that the host wants.
func (g *reverseGuest) apply(m *wire.ReverseMessage) {
	if err := g.link.orders.Verify(handshake.OrderReverse, m.Order(), m.Proof); err != nil {
		for _, spec := range m.Listeners {
			g.link.control.send(&wire.ReverseStateMessage{ID: spec.ID, State: wire.ReverseDenied, Reason: err.Error()})
		}
		return
	}
	wanted := make(map[uint64]bool, len(m.Listeners))
	for _, spec := range m.Listeners {
		wanted[spec.ID] = true
	}
	for id, l := range g.listeners {
		if !wanted[id] {
			l.close() // before others may want the address
			delete(g.listeners, id)
		}
	}
	for _, spec := range m.Listeners {
		if g.listeners[spec.ID] != nil {
			continue
		}
		l := &reverseListener{guest: g, spec: spec}
		var ctx context.Context
		ctx, l.cancel = context.WithCancel(g.ctx)
		g.listeners[spec.ID] = l
		g.link.streams.Go(func() { l.run(ctx) })
	}
}

// reverseListener is one listener.
type reverseListener struct {
	guest  *reverseGuest
	spec   wire.ReverseSpec
	cancel context.CancelFunc

	mu     sync.Mutex
	open   net.Listener // nil while there is none
	closed bool
	inode  uint64 // of the last TCP socket
}

func (l *reverseListener) close() {
	l.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	if l.open != nil {
		_ = l.open.Close()
	}
	l.guest.link.server.Own.Remove(l.inode)
}

// run listens until ctx ends, and tries again what fails.
func (l *reverseListener) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	said := wire.ReverseStateMessage{State: wire.ReverseFailed} // nothing yet
	for ctx.Err() == nil {
		ln, err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		now := wire.ReverseStateMessage{ID: l.spec.ID}
		if err != nil {
			now.State, now.Reason = listenState(err), err.Error()
		}
		if now != said {
			said = now
			l.guest.link.control.send(&now)
		}
		if err == nil {
			l.accept(ctx, ln)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reverseRetry):
		}
	}
}

func listenState(err error) wire.ReverseState {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return wire.ReverseInUse
	case errors.Is(err, fs.ErrPermission):
		return wire.ReverseDenied
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return wire.ReverseUnavailable
	}
	return wire.ReverseFailed
}

// listen opens the listener, unless it was closed meanwhile.
func (l *reverseListener) listen(ctx context.Context) (net.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	var ln net.Listener
	var err error
	if t := l.spec.Listen; t.Network == wire.NetworkUnix {
		ln, err = endpoint.ListenSocket(t.Path, reverseSocketMode)
	} else {
		// Known before it listens, so that it is in no scan.
		own := l.guest.link.server.Own
		own.Remove(l.inode)
		l.inode = 0
		c := net.ListenConfig{KeepAlive: -1, KeepAliveConfig: reverseKeepAlive(t.Addrs[0].Addr()), Control: func(_, _ string, raw syscall.RawConn) (err error) {
			if err := relay.ControlTCP("", "", raw); err != nil {
				return err
			}
			l.inode, err = own.Add(raw)
			return err
		}}
		c.SetMultipathTCP(false) // its connections inherit less
		network := "tcp6"        // alone, also on ::
		if t.Addrs[0].Addr().Is4() {
			network = "tcp4"
		}
		ln, err = c.Listen(ctx, network, t.Addrs[0].String())
	}
	if err != nil {
		return nil, err
	}
	l.open = reserve.NewListener(ln)
	if s, ok := ln.(*endpoint.SocketListener); ok {
		s.WhenLost(func(error) { _ = s.Close() }) // and run listens again
	}
	return l.open, nil
}

// reverseKeepAlive is none for clients on this machine.
func reverseKeepAlive(at netip.Addr) net.KeepAliveConfig {
	if at.IsLoopback() {
		return net.KeepAliveConfig{}
	}
	return relay.ClientKeepAlive
}

// accept takes connections until the listener is closed.
func (l *reverseListener) accept(ctx context.Context, ln net.Listener) {
	defer ln.Close()
	link := l.guest.link
	for {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				connOf(c).Abort()
			}
			return
		case err != nil:
			link.server.log().Warn("cannot accept a connection for the host", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case l.guest.clients <- struct{}{}:
		default:
			link.server.log().Warn("refused a connection for the host: too many are open", "limit", maxReverseStreams)
			connOf(c).Abort()
			continue
		}
		link.streams.Go(func() {
			l.carry(connOf(c))
			<-l.guest.clients
		})
	}
}

func connOf(c net.Conn) relay.Conn {
	if c, ok := c.(*net.UnixConn); ok {
		return relay.Unix(c)
	}
	return relay.TCP(c.(*net.TCPConn))
}

// carry carries one connection to the host.
func (l *reverseListener) carry(client relay.Conn) {
	link := l.guest.link
	s, err := l.openStream()
	if err != nil {
		client.Abort()
		link.server.log().Debug("no stream to the host", "err", err)
		return
	}
	relay.Relay(client, s, new(relay.Counters), func(err error) {
		if err != nil {
			link.server.log().Debug("connection to the host ended", "listener", l.spec.Listen, "err", err)
		}
	})
}

func (l *reverseListener) openStream() (*stream.Stream, error) {
	link := l.guest.link
	conn, err := link.session.Open()
	if err != nil {
		return nil, err
	}
	s := stream.New(wire.GuestOpened|l.guest.lastID.Add(1), &link.ends)
	if err := link.ends.Add(s); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if err := s.Attach(conn); err != nil {
		return nil, err
	}
	s.ExpectAnswer()
	if _, err := conn.Write(wire.ReverseOpen{ID: s.ID(), Listener: l.spec.ID}.Append(nil)); err != nil {
		s.Die(err)
		return nil, err
	}
	return s, nil
}
