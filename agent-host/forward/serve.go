package forward

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
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const pathBridge = "bridge"

// openTimeout is for a link that does not take a stream: longer than the
// two seconds after which the kernel gives up a vsock connect.
const openTimeout = 3 * time.Second

var errLink = errors.New("link to the guest agent")

var errNoWay = errors.New("no link to the guest agent, and no bridge address is known")

// earlySize is how much of what a client has sent already travels with the
// opening of a stream: a request of the usual protocols.
const earlySize = 4 << 10

var earlyBuffers = sync.Pool{New: func() any { return new([earlySize]byte) }}

// serve carries one connection. It waits for nothing.
func (f *forward) serve(c *relay.Client) {
	f.total.Add(1)
	f.active.Add(1)
	buf := earlyBuffers.Get().(*[earlySize]byte)
	defer earlyBuffers.Put(buf)
	early, err := c.Early(buf[:])
	if err != nil {
		c.Abort()
		f.ended(c, err)
		return
	}
	m := f.manner.Load()
	first := prefix{early, len(early)}
	if m.proxyProtocol {
		header, err := proxyHeader(c)
		if err != nil {
			c.Abort()
			f.ended(c, err)
			return
		}
		first.bytes = append(header, early...)
	}
	if m.hold == 0 && !f.refused.pass() {
		c.Abort()
		f.ended(c, errRefusedOften)
		return
	}
	if m.hold > 0 || !f.relayNow(c, first) {
		first.bytes = slices.Clone(first.bytes)
		f.vm.table.wg.Go(func() { f.relay(c, first, m) })
	}
}

// prefix is what a connection to the guest begins with: what the service is told of
// its client, if anything, and what that has sent already.
type prefix struct {
	bytes []byte
	sent  int // of the bytes, by the client
}

// relayNow carries a connection over the link if that is ready for it.
func (f *forward) relayNow(c *relay.Client, first prefix) bool {
	r := f.vm.route.Load()
	l := r.link
	if l == nil || l.RelayNow == nil || l.Silent() || f.bridgeFirst(r) {
		return false
	}
	t := f.vm.table
	t.wg.Add(1)
	ok := l.RelayNow(c, f.target(c), first.bytes, &f.counters, func(err error) {
		defer t.wg.Done()
		f.ended(c, err)
	})
	if !ok {
		t.wg.Done()
		return false
	}
	f.carried.Store(&carried{l, l.Path})
	f.counters.Out.Add(uint64(first.sent))
	return true
}

// relay carries a connection by whatever way there is, and waits as the rule says for a
// service that is not there. It returns as soon as the connection needs no goroutine any
// more.
func (f *forward) relay(c *relay.Client, first prefix, m *manner) {
	t := f.vm.table
	conn := c.Conn()
	reach := func() (relay.Conn, error) { return f.reach(t.ctx, c, conn, first.bytes) }
	if m.hold > 0 {
		reach = func() (relay.Conn, error) { return f.await(t.ctx, c, conn, first.bytes, m.holding, m.hold) }
	}
	guest, err := reach()
	if err != nil {
		conn.Abort()
		f.ended(c, err)
		return
	}
	f.counters.Out.Add(uint64(first.sent))
	t.wg.Add(1)
	stop := context.AfterFunc(t.ctx, func() { conn.Abort(); guest.Abort() })
	relay.Relay(conn, guest, &f.counters, func(err error) {
		defer t.wg.Done()
		stop()
		f.ended(c, err)
	})
}

// ended notes the end of a connection.
func (f *forward) ended(c *relay.Client, err error) {
	f.active.Add(-1)
	if err != nil {
		f.refused.note(err)
		switch {
		case ordinary(err):
		case c.From().IsValid():
			f.lastErr.note(err)
		default:
			f.lastErr.noteUnix(err)
		}
		f.vm.table.log.Debug("connection failed", "vm", f.vm.name, "port", f.key.Port, "client", c.From(), "error", err)
	}
}

// cannotAccept notes that a client was reset, or waits in vain for the time being.
func (f *forward) cannotAccept(err error) {
	if short, ok := errors.AsType[*relay.OutOfDescriptorsError](err); ok {
		f.vm.table.shortage.note(short, f.vm.table.log)
		return
	}
	f.lastErr.note(err)
	f.vm.table.log.Warn("cannot accept connections", "vm", f.vm.name, "port", f.key.Port, "error", err)
}

// reach connects to the guest by the best way there is, and sends there what the
// connection begins with.
func (f *forward) reach(ctx context.Context, c *relay.Client, conn relay.Conn, first []byte) (relay.Conn, error) {
	r := f.vm.route.Load()
	var linkErr error
	if r.link != nil && !r.link.Silent() && !f.bridgeFirst(r) {
		guest, err := f.openStream(ctx, r.link, f.target(c), first)
		if err == nil {
			return guest, nil
		}
		linkErr = fmt.Errorf("%w: %w", errLink, err)
	}
	if !r.Bridge.IsValid() {
		return nil, cmp.Or(linkErr, errNoWay)
	}
	guest, err := f.dialBridge(ctx, conn, r.Bridge, first)
	if err != nil && linkErr != nil {
		err = fmt.Errorf("%w; %w", linkErr, err)
	}
	return guest, err
}

// onBridge tells why nothing that listens in the guest is reached at its bridge
// address; nil if something is.
func (f *forward) onBridge(bridge netip.Addr) error {
	if f.key.Socket != "" {
		return errors.New("a unix socket of the guest cannot be reached over the bridge")
	}
	return policy.OnBridge(*f.guest.Load(), bridge)
}

// bridgeFirst reports whether the bridge reaches what listens in the guest and the
// guest's agent does not.
func (f *forward) bridgeFirst(r *route) bool {
	return r.Bridge.IsValid() && policy.BridgeOnly(*f.guest.Load()) && f.onBridge(r.Bridge) == nil
}

// target is what a client's connection goes to in the guest: if that can be
// chosen, with the address family that the client used, IPv4 on a unix socket.
func (f *forward) target(c *relay.Client) wire.Target {
	if f.key.Socket != "" {
		return wire.UnixTarget(f.key.Socket)
	}
	return wire.Target{Network: f.key.Proto, Addrs: policy.Candidates(*f.guest.Load(), !c.From().Addr().Is6())}
}

func (f *forward) openStream(ctx context.Context, l *Link, target wire.Target, first []byte) (relay.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	guest, path, err := l.Open(ctx, target, first)
	if err != nil {
		return nil, err
	}
	f.carried.Store(&carried{l, path})
	return guest, nil
}

// dialBridge connects as long as the kernel tries and the client waits.
func (f *forward) dialBridge(ctx context.Context, client relay.Conn, bridge netip.Addr, first []byte) (relay.Conn, error) {
	if err := f.onBridge(bridge); err != nil {
		return nil, err
	}
	addr := netip.AddrPortFrom(bridge, f.key.Port)
	if f.vm.table.isOurs(hostAddr{f.key.Proto, addr, ""}) {
		return nil, fmt.Errorf("bridge address %v is this host's own", addr)
	}
	select {
	case f.vm.dials <- struct{}{}:
		defer func() { <-f.vm.dials }()
	default:
		return nil, fmt.Errorf("bridge: %w", dial.ErrTooMany)
	}
	there, stop := relay.WhileThere(ctx, client)
	d := net.Dialer{Timeout: wire.DialTimeout, Control: relay.ControlTCP}
	c, err := d.DialContext(there, f.key.Proto, addr.String())
	stop()
	gone := context.Cause(there)
	switch {
	case errors.Is(gone, relay.ErrClient):
		if err == nil {
			_ = c.Close()
		}
		err = gone
	case err == nil:
		err = dial.NotToItself(c)
	}
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	if err := relay.CheckDescriptors(c.(*net.TCPConn)); err != nil {
		_ = c.Close()
		f.cannotAccept(err)
		return nil, err
	}
	guest := relay.TCP(c.(*net.TCPConn))
	// The socket's buffer takes this without waiting.
	if _, err := guest.Write(first); err != nil {
		guest.Abort()
		return nil, fmt.Errorf("bridge: %w", err)
	}
	f.carried.Store(&carried{nil, pathBridge})
	return guest, nil
}

// isOurs reports whether what goes to h would come back to the table.
func (t *Table) isOurs(h hostAddr) (is bool) {
	t.look(func() { is = t.bound[h] != nil })
	return is
}
