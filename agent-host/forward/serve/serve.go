package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// PathBridge is the path over the bridge.
const PathBridge = "bridge"

// OpenTimeout is for a link that does not take a stream: longer than the
// two seconds after which the kernel gives up a vsock connect.
const OpenTimeout = 3 * time.Second

var errLink = errors.New("link to the guest agent")

// ErrNoWay says that nothing reaches the guest.
var ErrNoWay = errors.New("no link to the guest agent, and no bridge address is known")

// earlySize is how much of what a client has sent already travels with the
// opening of a stream: a request of the usual protocols.
const earlySize = 4 << 10

var earlyBuffers = sync.Pool{New: func() any { return new([earlySize]byte) }}

// Serve carries one connection. It waits for nothing.
func (s *Service) Serve(c *relay.Client) {
	s.Total.Add(1)
	s.Active.Add(1)
	buf := earlyBuffers.Get().(*[earlySize]byte)
	defer earlyBuffers.Put(buf)
	early, err := c.Early(buf[:])
	if err != nil {
		c.Abort()
		s.ended(c, err)
		return
	}
	m := s.manner.Load()
	first := prefix{early, len(early)}
	if m.proxyProtocol {
		from, to := m.from, m.to
		if !from.IsValid() {
			from, to = c.From(), c.To()
		}
		header, err := proxyHeader(from, to)
		if err != nil {
			c.Abort()
			s.ended(c, err)
			return
		}
		first.bytes = append(header, early...)
	}
	if m.hold == 0 && !s.refused.pass() {
		c.Abort()
		s.ended(c, errRefusedOften)
		return
	}
	if m.hold > 0 || !s.relayNow(c, first) {
		first.bytes = slices.Clone(first.bytes)
		s.guest.wg.Go(func() { s.relay(c, first, m) })
	}
}

// prefix is what a connection to the guest begins with: what the service is told of
// its client, if anything, and what that has sent already.
type prefix struct {
	bytes []byte
	sent  int // of the bytes, by the client
}

// relayNow carries a connection over the link if that is ready for it.
func (s *Service) relayNow(c *relay.Client, first prefix) bool {
	r := s.guest.Route()
	l := r.Link
	if l == nil || l.RelayNow == nil || l.Silent() || s.BridgeFirst(r) {
		return false
	}
	t := s.guest
	t.wg.Add(1)
	ok := l.RelayNow(c, s.targetFor(c), first.bytes, &s.Counters, func(err error) {
		defer t.wg.Done()
		s.ended(c, err)
	})
	if !ok {
		t.wg.Done()
		return false
	}
	s.Carry(l, l.Path)
	s.Counters.Out.Add(uint64(first.sent))
	return true
}

// relay carries a connection by whatever way there is, and waits as the rule says for a
// service that is not there. It returns as soon as the connection needs no goroutine any
// more.
func (s *Service) relay(c *relay.Client, first prefix, m *manner) {
	t := s.guest
	conn := c.Conn()
	reach := func() (relay.Conn, error) { return s.reach(t.ctx, c, conn, first.bytes) }
	if m.hold > 0 {
		reach = func() (relay.Conn, error) { return s.await(t.ctx, c, conn, first.bytes, m.holding, m.hold) }
	}
	guest, err := reach()
	if err != nil {
		conn.Abort()
		s.ended(c, err)
		return
	}
	s.Counters.Out.Add(uint64(first.sent))
	t.wg.Add(1)
	stop := context.AfterFunc(t.ctx, func() { conn.Abort(); guest.Abort() })
	relay.Relay(conn, guest, &s.Counters, func(err error) {
		defer t.wg.Done()
		stop()
		s.ended(c, err)
	})
}

// ended notes the end of a connection.
func (s *Service) ended(c *relay.Client, err error) {
	s.Active.Add(-1)
	if err != nil {
		s.refused.note(err)
		switch {
		case Ordinary(err):
		case c.From().IsValid():
			s.Errors.Note(err)
		default:
			s.Errors.noteUnix(err)
		}
		s.guest.log.Debug("connection failed", "vm", s.guest.name, "port", s.key.Port, "client", c.From(), "error", err)
	}
}

// CannotAccept notes that a client was reset, or waits in vain for the time being.
func (s *Service) CannotAccept(err error) {
	if short, ok := errors.AsType[*reserve.SpentError](err); ok {
		s.Errors.count(short)
		s.guest.shortage.note(short, s.guest.log)
		return
	}
	s.Errors.Note(err)
	s.guest.log.Warn("cannot accept connections", "vm", s.guest.name, "port", s.key.Port, "error", err)
}

// reach connects to the guest by the best way there is, and sends there what the
// connection begins with.
func (s *Service) reach(ctx context.Context, c *relay.Client, conn relay.Conn, first []byte) (relay.Conn, error) {
	r := s.guest.Route()
	var linkErr error
	if r.Linked() && !s.BridgeFirst(r) {
		guest, err := s.openStream(ctx, r.Link, s.targetFor(c), first)
		if err == nil {
			return guest, nil
		}
		linkErr = fmt.Errorf("%w: %w", errLink, err)
	}
	if !r.Bridge.IsValid() {
		return nil, cmp.Or(linkErr, ErrNoWay)
	}
	guest, err := s.dialBridge(ctx, conn, r, first)
	if err != nil && linkErr != nil {
		err = fmt.Errorf("%w; %w", linkErr, err)
	}
	return guest, err
}

// OnBridge tells why nothing that listens in the guest is reached at its bridge
// address; nil if something is.
func (s *Service) OnBridge(bridge netip.Addr) error {
	if s.key.Socket != "" {
		return errors.New("a unix socket of the guest cannot be reached over the bridge")
	}
	return policy.OnBridge(s.Listeners(), bridge)
}

// BridgeFirst reports whether the bridge reaches what listens in the guest and the
// guest's agent does not.
func (s *Service) BridgeFirst(r *Route) bool {
	return r.Bridge.IsValid() && policy.BridgeOnly(s.Listeners()) && s.OnBridge(r.Bridge) == nil
}

// targetFor is what a client's connection goes to in the guest: if that can be
// chosen, with the address family that the client used, IPv4 on a unix socket.
func (s *Service) targetFor(c *relay.Client) wire.Target { return s.target(!c.From().Addr().Is6()) }

// target is what a connection goes to in the guest, by IPv4 where that can be chosen and is wanted.
func (s *Service) target(ipv4 bool) wire.Target {
	if s.key.Socket != "" {
		return wire.UnixTarget(s.key.Socket)
	}
	return wire.Target{Network: s.key.Proto, Addrs: policy.Candidates(s.Listeners(), ipv4)}
}

func (s *Service) openStream(ctx context.Context, l *Link, target wire.Target, first []byte) (relay.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, OpenTimeout)
	defer cancel()
	guest, path, err := l.Open(ctx, target, first)
	if err != nil {
		return nil, err
	}
	if st, ok := guest.(*stream.Stream); ok {
		st.CountDial(&s.Counters.Dials)
	}
	s.Carry(l, path)
	return guest, nil
}

// dialBridge connects as long as the kernel tries and the client waits.
func (s *Service) dialBridge(ctx context.Context, client relay.Conn, r *Route, first []byte) (relay.Conn, error) {
	there, stop := whileThere(ctx, client)
	guest, err := s.connectBridge(there, r)
	stop()
	if gone := context.Cause(there); errors.Is(gone, relay.ErrClient) {
		if err == nil {
			guest.Abort()
		}
		return nil, fmt.Errorf("bridge: %w", gone)
	}
	if err != nil {
		if _, short := errors.AsType[*reserve.SpentError](err); short {
			s.CannotAccept(err)
		}
		return nil, err
	}
	// The socket's buffer, or a stream's window, takes this without waiting.
	if _, err := guest.Write(first); err != nil {
		guest.Abort()
		return nil, fmt.Errorf("bridge: %w", err)
	}
	s.Carry(nil, PathBridge)
	return guest, nil
}

// connectBridge connects to the bridge address, from here or from the host that has the bridge.
func (s *Service) connectBridge(ctx context.Context, r *Route) (relay.Conn, error) {
	if r.DialBridge == nil {
		c, err := s.connectHere(ctx, r.Bridge)
		if err != nil {
			return nil, err
		}
		return relay.TCP(c), nil
	}
	if err := s.OnBridge(r.Bridge); err != nil {
		return nil, err
	}
	done, err := s.mayDial()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, wire.DialTimeout)
	defer cancel()
	began := clock.Now()
	c, err := r.DialBridge(ctx, s.key.Port)
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	s.Counters.Dials.Observe(clock.Now() - began)
	return c, nil
}

// mayDial counts a dial over the bridge until done is called.
func (s *Service) mayDial() (done func(), err error) {
	select {
	case s.guest.dials <- struct{}{}:
		return func() { <-s.guest.dials }, nil
	default:
		return nil, fmt.Errorf("bridge: %w", dial.ErrTooMany)
	}
}

// connectHere connects as long as the kernel tries. A connection that is closed is reset.
func (s *Service) connectHere(ctx context.Context, bridge netip.Addr) (*net.TCPConn, error) {
	if err := s.OnBridge(bridge); err != nil {
		return nil, err
	}
	addr := netip.AddrPortFrom(bridge, s.key.Port)
	if s.guest.isOurs(s.key.Proto, addr) {
		return nil, fmt.Errorf("bridge address %v is this host's own", addr)
	}
	done, err := s.mayDial()
	if err != nil {
		return nil, err
	}
	defer done()
	began := clock.Now()
	d := net.Dialer{Timeout: wire.DialTimeout, Control: relay.ControlTCP}
	c, err := d.DialContext(ctx, s.key.Proto, addr.String())
	if err == nil {
		err = dial.NotToItself(c)
	}
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	if err := reserve.CheckConn(c.(*net.TCPConn)); err != nil {
		_ = c.Close()
		return nil, err
	}
	s.Counters.Dials.Observe(clock.Now() - began)
	return c.(*net.TCPConn), nil
}
