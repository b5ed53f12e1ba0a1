package forward

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/udp"
	"golang.org/x/sys/unix"
)

// place gives a new binding its host addresses or makes it a claim.
func (t *Table) place(b *binding) {
	t.overrule(b)
	t.takePrecedence(b)
	t.displace(b)
	if !t.bind(b, true) {
		t.claim(b)
	}
}

// withdraw takes a forward off the host.
func (t *Table) withdraw(f *forward) {
	if t.takeDown(f) {
		t.log.Info("port closed", "vm", f.vm.name, "port", f.key.Port)
	}
}

// takeDown ends what a forward has and waits for. It reports whether it had host
// addresses.
func (t *Table) takeDown(f *forward) (released bool) {
	for _, b := range f.bindings() {
		t.yield(b)
		t.endPrecedence(b)
		released = t.remove(b) || released
	}
	f.vm.leave(f.consumer)
	f.unsuggest()
	f.vm.changed()
	f.service.End()
	return released
}

// remove ends a binding or a claim. It reports whether that released an address.
func (t *Table) remove(b *binding) (released bool) {
	if b.open == nil {
		t.unclaim(b)
		if t.comesFirst(b) {
			t.freed(b)
		}
		return false
	}
	t.freed(b)
	for i, l := range b.open.listeners {
		if l.Closer != nil {
			t.vacate(b.wanted[i])
		}
	}
	b.release()
	b.lostAddress()
	return true
}

// bind opens all addresses of b or none. It reports whether it did; if not, the
// binding says why. Where a limit is met, mayEvict lets it take from others.
func (t *Table) bind(b *binding, mayEvict bool) bool {
	listeners, err := t.open(b, mayEvict)
	if err != nil {
		t.explain(b, err)
		return false
	}
	done := make(chan struct{})
	for i, l := range listeners {
		if err := b.attend(l.Closer, done); err != nil {
			close(done)
			t.closeAll(listeners...)
			t.explain(b, &bindError{b.wanted[i], err})
			return false
		}
	}
	for i, l := range listeners {
		if l.Closer != nil {
			t.occupy(b.wanted[i], b)
		}
	}
	b.gotAddress()
	b.open = &opening{listeners, done}
	b.become(status.Active, "")
	b.shadowed, b.heldAt = false, hostAddr{}
	t.awaitMissing(b)
	t.freed(b) // whoever waits for it says who has it
	log := t.log.Info
	if b.own && b.main.open != nil {
		log = t.log.Debug // the port was said to be open
	}
	log("port open", "vm", b.vm.name, "port", b.key.Port, "host", b.hosts(), "process", b.process)
	return true
}

func (t *Table) open(b *binding, mayEvict bool) (listeners []listener, err error) {
	if r := b.vm.kept(b.key); r != nil {
		return nil, errors.New(r.reason)
	}
	for n := range b.wanted {
		i := b.nth(n)
		if err := t.obstacle(b, b.wanted[i]); err != nil {
			b.first = i
			return nil, &bindError{b.wanted[i], err}
		}
	}
	room := t.noRoom
	if mayEvict {
		room = t.makeRoom
	}
	if err := room(b.need()); err != nil {
		return nil, err
	}
	var missing error
	opened := 0
	listeners = make([]listener, len(b.wanted))
	defer func() {
		if err != nil {
			t.closeAll(listeners...)
		}
	}()
	for n := range b.wanted {
		i := b.nth(n)
		addr := b.wanted[i]
		l, err := t.openAt(addr)
		switch {
		case err == nil:
			listeners[i] = l
			opened++
		case b.canDoWithout(addr) && noSuchAddress(err):
			missing = &bindError{addr, err}
		default:
			b.first = i
			return listeners, &bindError{addr, err}
		}
	}
	if opened == 0 && missing != nil {
		return nil, missing
	}
	return listeners, nil
}

func (t *Table) closeAll(listeners ...listener) {
	for _, l := range listeners {
		if l.Closer != nil {
			l.Close()
			t.ours.Remove(l.inode)
		}
	}
}

// obstacle is what is known to keep b from an address, without trying it.
func (t *Table) obstacle(b *binding, h hostAddr) error {
	if t.rival(b, h) != nil {
		return unix.EADDRINUSE
	}
	return t.heldByTenant(h)
}

func (t *Table) openAt(h hostAddr) (listener, error) {
	l, err := t.listen(h)
	if errors.Is(err, unix.EADDRINUSE) {
		t.tenantSeen(h)
	}
	return l, err
}

func noSuchAddress(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)
}

// listen opens a listener. A table's lock is held until the listener is known to
// be ours, so that no announcement of it can be taken in before.
func (t *Table) listen(h hostAddr) (listener, error) {
	switch h.proto {
	case "udp":
		return t.listenUDP(h.addr)
	case policy.ProtoUnix:
		// A directory such as ~/.rum need not be there; a failure is told by listening.
		_ = os.MkdirAll(filepath.Dir(h.path), 0o700)
		l, err := endpoint.ListenSocket(h.path, 0o600)
		if err != nil {
			return listener{}, err
		}
		return accepting(l, 0)
	}
	l, err := t.cfg.Listen(h.addr)
	if err != nil {
		return listener{}, err
	}
	inode, err := t.takeIn(l)
	if err != nil {
		l.Close()
		return listener{}, err
	}
	a, err := accepting(l, inode)
	if err != nil {
		t.ours.Remove(inode)
	}
	return a, err
}

// listenUDP opens a host socket. One on :: is for IPv6 alone, as with TCP.
func (t *Table) listenUDP(addr netip.AddrPort) (listener, error) {
	network := "udp6"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return listener{}, err
	}
	inode, err := t.takeIn(conn)
	if err != nil {
		_ = conn.Close()
		return listener{}, err
	}
	socket, err := udp.NewSocket(conn)
	if err != nil {
		_ = conn.Close()
		t.ours.Remove(inode)
		return listener{}, err
	}
	return listener{socket, inode}, nil
}

func accepting(l net.Listener, inode uint64) (listener, error) {
	a, err := relay.NewAcceptor(l)
	if err != nil {
		return listener{}, err
	}
	return listener{a, inode}, nil
}

// takeIn makes a socket one of ours.
func (t *Table) takeIn(c syscall.Conn) (inode uint64, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	return t.ours.Add(raw)
}

// rival is the binding of ours that keeps b from h, if any.
func (t *Table) rival(b *binding, h hostAddr) *binding {
	if b.own {
		if r := t.overruling(h); r != nil {
			return r
		}
	}
	if r := b.preferred(); r != nil {
		return r
	}
	if r := b.outranking(h); r != nil {
		return r
	}
	if r := t.bound[h]; r != nil {
		return r
	}
	if h.path != "" {
		return nil
	}
	if any := wildcard(h); any != h {
		return t.bound[any]
	}
	for _, at := range t.boundAt(h.spot()) {
		if wildcard(at) == h {
			return t.bound[at]
		}
	}
	return nil
}

// wildcard is all addresses of the family and port of h.
func wildcard(h hostAddr) hostAddr {
	any := netip.IPv4Unspecified()
	if h.addr.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	h.addr = netip.AddrPortFrom(any, h.addr.Port())
	return h
}
