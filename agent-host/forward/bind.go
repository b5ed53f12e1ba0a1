package forward

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/tunnel"
	"golang.org/x/sys/unix"
)

// maxBound bounds what one guest can take of the host: a forward costs two
// descriptors, and agents run with a limit of some thousands.
const maxBound = 1024

var errTooMany = fmt.Errorf("this VM has %d ports forwarded already, which is the most", maxBound)

// bindError says which address could not be bound.
type bindError struct {
	addr hostAddr
	err  error
}

func (e *bindError) Error() string { return e.err.Error() }
func (e *bindError) Unwrap() error { return e.err }

// place gives a new forward its host addresses or makes it a claim.
func (t *Table) place(f *forward) {
	if f.decision.Verdict != "" {
		t.log.Debug("guest port is not forwarded", "vm", f.vm.name, "proto", f.key.proto, "port", f.key.port, "reason", f.reason)
		return
	}
	// An older claim goes first, should its address have become free just now.
	t.retryClaims(f.tries...)
	if !t.bind(f) {
		t.claims = append(t.claims, f)
	}
}

// withdraw takes a forward off the host. It reports whether that released an
// address.
func (t *Table) withdraw(f *forward) bool {
	if f.listeners == nil {
		t.claims = slices.DeleteFunc(t.claims, func(c *forward) bool { return c == f })
		return false
	}
	for addr := range f.listeners {
		delete(t.bound, addr)
	}
	f.release()
	f.vm.bound--
	t.log.Info("port closed", "vm", f.vm.name, "port", f.key.port)
	return true
}

// bind opens all host addresses of f or none. It reports whether it did; if
// not, the forward says why.
func (t *Table) bind(f *forward) bool {
	listeners, err := t.open(f)
	if err != nil {
		t.explain(f, err)
		return false
	}
	for addr, l := range listeners {
		t.bound[addr] = f
		t.wg.Go(func() { f.attend(l) })
	}
	f.vm.bound++
	f.listeners = listeners
	f.state, f.reason = control.Active, ""
	t.log.Info("port open", "vm", f.vm.name, "port", f.key.port, "host", f.hosts(), "process", f.process)
	return true
}

func (t *Table) open(f *forward) (listeners map[hostAddr]io.Closer, err error) {
	if f.vm.bound >= maxBound {
		return nil, errTooMany
	}
	listeners = make(map[hostAddr]io.Closer, len(f.tries))
	defer func() {
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
		}
	}()
	for i, addr := range f.tries {
		if t.rival(addr) != nil {
			f.tryFirst(i)
			return listeners, &bindError{addr, unix.EADDRINUSE}
		}
		l, err := t.listen(addr)
		switch {
		case err == nil:
			listeners[addr] = l
		case addr.addr.Addr().Is6() && len(f.tries) > 1 && noSuchAddress(err):
			// A host without IPv6: there, localhost is 127.0.0.1 alone, and
			// everything is IPv4.
		default:
			f.tryFirst(i)
			return listeners, &bindError{addr, err}
		}
	}
	return listeners, nil
}

func (f *forward) tryFirst(i int) {
	addr := f.tries[i]
	f.tries = slices.Insert(slices.Delete(f.tries, i, i+1), 0, addr)
}

func noSuchAddress(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)
}

// listen opens a listener that [forward.attend] knows.
func (t *Table) listen(h hostAddr) (io.Closer, error) {
	switch h.proto {
	case "udp":
		return listenUDP(h.addr)
	case protoUnix:
		return tunnel.ListenSocket(h.path, 0o600)
	}
	return t.cfg.Listen(h.addr)
}

// attend serves what comes to a listener until the forward is withdrawn.
func (f *forward) attend(l io.Closer) {
	switch l := l.(type) {
	case net.Listener:
		f.accept(l)
	case *tunnel.UDPSocket:
		f.receive(l)
	}
}

// rival is the forward of ours that keeps h from being bound, if any.
func (t *Table) rival(h hostAddr) *forward {
	if f := t.bound[h]; f != nil {
		return f
	}
	if h.path != "" {
		return nil
	}
	any := netip.IPv4Unspecified()
	if h.addr.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	if h.addr.Addr() != any {
		return t.bound[hostAddr{h.proto, netip.AddrPortFrom(any, h.addr.Port()), ""}]
	}
	for b, f := range t.bound {
		if b.proto == h.proto && b.addr.Port() == h.addr.Port() && b.addr.Addr().Is4() == h.addr.Addr().Is4() {
			return f
		}
	}
	return nil
}

// explain sets state and reason of a forward that could not be bound.
func (t *Table) explain(f *forward, err error) {
	bind, _ := errors.AsType[*bindError](err)
	inUse := errors.Is(err, unix.EADDRINUSE)
	switch {
	case inUse && t.rival(bind.addr) != nil:
		f.holder = holder{}
		t.settle(f, control.Claim, fmt.Sprintf("%v is held by %s", bind.addr, t.rival(bind.addr).as(f)))
	case inUse && f.holder.of == bind.addr:
		// The claim keeper finds out who that is, and looks again now and then.
	case inUse:
		f.holder = holder{of: bind.addr}
		f.state, f.reason = control.Claim, fmt.Sprintf("%v is in use", bind.addr)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, errTooMany):
		f.holder = holder{}
		t.settle(f, control.Denied, denial(bind, err))
	default:
		f.holder = holder{}
		t.settle(f, control.Claim, err.Error())
	}
}

// as names a forward that has what another one wants.
func (f *forward) as(other *forward) string {
	switch {
	case f.key.port == other.key.port && f.key.socket == other.key.socket:
		return "VM " + f.vm.name
	case f.key.socket != "":
		return fmt.Sprintf("VM %s, for its socket %s", f.vm.name, f.key.socket)
	}
	return fmt.Sprintf("VM %s, for its port %d", f.vm.name, f.key.port)
}

// denial says what would have to be done, where that is known.
func denial(bind *bindError, err error) string {
	// 1024 is PROT_SOCK of linux/net/sock.h, the default of the setting.
	if bind == nil || bind.addr.path != "" || bind.addr.addr.Port() >= 1024 {
		return err.Error()
	}
	return fmt.Sprintf("%v needs a permission; give it with: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=%d",
		bind.addr, bind.addr.addr.Port())
}

// settle gives an unbound forward its state and says so when that is news.
func (t *Table) settle(f *forward, state, reason string) {
	f.state, f.reason = state, reason
	if f.told != reason {
		f.told = reason
		t.log.Warn("port not open yet", "vm", f.vm.name, "port", f.key.port, "state", state, "reason", reason)
	}
}
