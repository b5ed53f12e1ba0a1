package forward

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/tunnel"
	"golang.org/x/sys/unix"
)

// maxBound bounds what one guest can take of the host: a forward costs three
// descriptors, and agents run with a limit of some thousands.
const maxBound = 1024

// place gives a new binding its host addresses or makes it a claim.
func (t *Table) place(b *binding) {
	t.overrule(b)
	t.displace(b)
	// An older claim goes first, should its address have become free just now.
	t.retryClaims(b.tries...)
	if !t.bind(b) {
		t.claims = append(t.claims, b)
	}
}

// withdraw takes a forward off the host. It reports whether that released an
// address.
func (t *Table) withdraw(f *forward) (released bool) {
	for _, b := range f.bindings() {
		t.yield(b)
		released = t.remove(b) || released
	}
	if released {
		t.log.Info("port closed", "vm", f.vm.name, "port", f.key.port)
	}
	return released
}

// remove ends a binding or a claim. It reports whether that released an address.
func (t *Table) remove(b *binding) (released bool) {
	if b.open == nil {
		t.claims = slices.DeleteFunc(t.claims, func(c *binding) bool { return c == b })
		return false
	}
	for addr := range b.open.listeners {
		delete(t.bound, addr)
	}
	b.release()
	if b.opened--; b.opened == 0 {
		b.vm.bound--
	}
	return true
}

// bind opens all addresses of b or none. It reports whether it did; if not, the
// binding says why.
func (t *Table) bind(b *binding) bool {
	listeners, err := t.open(b)
	if err != nil {
		t.explain(b, err)
		return false
	}
	done := make(chan struct{})
	for addr, l := range listeners {
		t.bound[addr] = b
		b.attend(l.Closer, done)
	}
	if b.opened++; b.opened == 1 {
		b.vm.bound++
	}
	b.open = &opening{listeners, done}
	b.state, b.reason, b.shadowed = control.Active, "", false
	t.awaitMissing(b)
	log := t.log.Info
	if b.own && b.main.open != nil {
		log = t.log.Debug // the port was said to be open
	}
	log("port open", "vm", b.vm.name, "port", b.key.port, "host", b.hosts(), "process", b.process)
	return true
}

func (t *Table) open(b *binding) (listeners map[hostAddr]listener, err error) {
	if b.opened == 0 && b.vm.bound >= maxBound {
		return nil, errTooMany
	}
	listeners = make(map[hostAddr]listener, len(b.tries))
	defer func() {
		if err != nil {
			for _, l := range listeners {
				l.Close()
				t.ours.Remove(l.inode)
			}
		}
	}()
	for i, addr := range b.tries {
		if t.rival(b, addr) != nil {
			b.tryFirst(i)
			return listeners, &bindError{addr, unix.EADDRINUSE}
		}
		l, err := t.listen(addr)
		switch {
		case err == nil:
			listeners[addr] = l
		case addr.addr.Addr().Is6() && len(b.tries) > 1 && noSuchAddress(err):
			// A host without IPv6: there, localhost is 127.0.0.1 alone, and
			// everything is IPv4, until it has IPv6 again.
		default:
			b.tryFirst(i)
			return listeners, &bindError{addr, err}
		}
	}
	return listeners, nil
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
	case protoUnix:
		// A directory such as ~/.rum need not be there; a failure is told by listening.
		_ = os.MkdirAll(filepath.Dir(h.path), 0o700)
		l, err := tunnel.ListenSocket(h.path, 0o600)
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

func accepting(l net.Listener, inode uint64) (listener, error) {
	a, err := tunnel.NewAcceptor(l)
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

// attend serves what comes to a listener until done is closed, which is with the
// listener.
func (f *forward) attend(l io.Closer, done <-chan struct{}) {
	switch l := l.(type) {
	case *tunnel.Acceptor:
		if err := l.Serve(f.serve, f.cannotAccept); err != nil {
			f.cannotAccept(err)
		}
	case *tunnel.UDPSocket:
		f.vm.table.wg.Go(func() { f.receive(l, done) })
	}
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
	if r := t.bound[h]; r != nil {
		return r
	}
	if h.path != "" {
		return nil
	}
	if any := wildcard(h); any != h {
		return t.bound[any]
	}
	for at, r := range t.bound {
		if wildcard(at) == h {
			return r
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
