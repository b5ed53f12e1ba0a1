package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
)

const pathBridge = "bridge"

const (
	// openTimeout is for a link that does not take a stream: longer than the
	// two seconds after which the kernel gives up a vsock connect.
	openTimeout = 3 * time.Second
	// bridgeTimeout is for a VM that is not there: a host-only network answers
	// within a millisecond or never.
	bridgeTimeout = 3 * time.Second
)

var errNoWay = errors.New("no link to the guest agent, and no bridge address is known")

// serve carries one connection. It returns as soon as the connection needs no
// goroutine any more.
func (f *forward) serve(client client) {
	f.total.Add(1)
	f.active.Add(1)
	t := f.vm.table
	c := relayed(client)
	guest, err := f.reach(t.ctx, client)
	if err != nil {
		c.Abort()
		f.ended(client, err)
		return
	}
	t.wg.Add(1)
	stop := context.AfterFunc(t.ctx, func() { c.Abort(); guest.Abort() })
	tunnel.Relay(c, guest, &f.counters, func(err error) {
		defer t.wg.Done()
		stop()
		f.ended(client, err)
	})
}

// ended notes the end of a connection.
func (f *forward) ended(client client, err error) {
	f.active.Add(-1)
	if err != nil {
		f.fail(err)
		f.vm.table.log.Debug("connection failed", "vm", f.vm.name, "port", f.key.port, "client", client.RemoteAddr(), "error", err)
	}
}

// reach connects to the guest by the best way there is, and sends there what
// the client has sent already.
func (f *forward) reach(ctx context.Context, client client) (tunnel.Conn, error) {
	buf := earlyBuffers.Get().(*[earlySize]byte)
	defer earlyBuffers.Put(buf)
	early, err := readEarly(client, buf[:])
	if err != nil {
		return nil, err
	}
	r := f.vm.route.Load()
	var linkErr error
	if r.link != nil && !r.link.Silent() {
		guest, err := f.openStream(ctx, r.link, ipv4(client.LocalAddr()), early)
		if err == nil {
			return guest, nil
		}
		linkErr = fmt.Errorf("link to the guest agent: %w", err)
	}
	if !r.bridge.IsValid() {
		return nil, cmp.Or(linkErr, errNoWay)
	}
	guest, err := f.dialBridge(ctx, r.bridge, early)
	if err != nil && linkErr != nil {
		err = fmt.Errorf("%w; %w", linkErr, err)
	}
	return guest, err
}

func (f *forward) openStream(ctx context.Context, l *Link, clientIs4 bool, early []byte) (tunnel.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	target := tunnel.UnixTarget(f.key.socket)
	if f.key.socket == "" {
		target = tunnel.Target{Network: f.key.proto, Addrs: candidates(*f.guest.Load(), clientIs4)}
	}
	guest, path, err := l.Open(ctx, target, early)
	if err != nil {
		return nil, err
	}
	f.carried.Store(&carried{l, path})
	f.counters.Out.Add(uint64(len(early)))
	return guest, nil
}

func (f *forward) dialBridge(ctx context.Context, bridge netip.Addr, early []byte) (tunnel.Conn, error) {
	if err := f.onBridge(bridge); err != nil {
		return nil, err
	}
	addr := netip.AddrPortFrom(bridge, f.key.port)
	if f.vm.table.isOurs(hostAddr{f.key.proto, addr, ""}) {
		return nil, fmt.Errorf("bridge address %v is this host's own", addr)
	}
	d := net.Dialer{Timeout: bridgeTimeout}
	c, err := d.DialContext(ctx, f.key.proto, addr.String())
	if err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	guest := tunnel.TCP(c.(*net.TCPConn))
	// The socket's buffer takes this without waiting.
	if _, err := guest.Write(early); err != nil {
		guest.Abort()
		return nil, fmt.Errorf("bridge: %w", err)
	}
	f.carried.Store(&carried{nil, pathBridge})
	f.counters.Out.Add(uint64(len(early)))
	return guest, nil
}

// isOurs reports whether what goes to h would come back to the table.
func (t *Table) isOurs(h hostAddr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bound[h] != nil
}

// onBridge tells why nothing that listens in the guest is reached at its bridge
// address; nil if something is.
func (f *forward) onBridge(bridge netip.Addr) error {
	if f.key.socket != "" {
		return errors.New("a unix socket of the guest cannot be reached over the bridge")
	}
	guest := *f.guest.Load()
	for _, a := range guest {
		if a.Addr().IsUnspecified() || a.Addr() == bridge {
			return nil
		}
	}
	return fmt.Errorf("the guest listens only on %v, which cannot be reached over the bridge", guest)
}

// candidates orders what listens in the guest: first what the guest itself would
// call localhost, and of that the address family the client used.
func candidates(guest []netip.AddrPort, clientIs4 bool) []netip.AddrPort {
	out := slices.Clone(guest)
	rank := func(a netip.Addr) int {
		n := 0
		if !a.IsLoopback() && !a.IsUnspecified() {
			n += 2
		}
		if a.Is4() != clientIs4 {
			n++
		}
		return n
	}
	slices.SortStableFunc(out, func(a, b netip.AddrPort) int { return rank(a.Addr()) - rank(b.Addr()) })
	return out[:min(len(out), tunnel.MaxTargetAddrs)]
}

// ipv4 reports whether a client would rather be served over IPv4: not if it came
// over IPv6.
func ipv4(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.AddrPort().Addr().Unmap().Is4()
}
