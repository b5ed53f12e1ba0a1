package host

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/fdstore"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/udp"
	"golang.org/x/sys/unix"
)

// Addresses is what this host has at its addresses: our listeners, and other programs. It has
// no lock of its own: one goroutine at a time may use it, but for [Addresses.IsOwn] and
// [Addresses.HolderOf].
type Addresses struct {
	listenTCP func(netip.AddrPort) (*net.TCPListener, error)
	holder    func(proto string, addr netip.AddrPort) string
	now       func() time.Time
	ours      portwatch.Own // the listeners
	tenants   map[Addr]*tenant
	round     int            // of looking for tenants
	store     *fdstore.Store // nil for none
	leaving   bool           // see Leave
}

// New returns the addresses of this host, as yet without anything known. listen opens TCP
// listeners in the place of [relay.ListenTCP], holder names the program that has an address, or gives "", and
// now is the time; each may be nil, for what the kernel says. store keeps listeners for the next process; nil is nobody.
func New(listen func(netip.AddrPort) (*net.TCPListener, error), holder func(string, netip.AddrPort) string, now func() time.Time, store *fdstore.Store) *Addresses {
	if holder == nil {
		holder = portwatch.Holder
	}
	if now == nil {
		now = time.Now
	}
	return &Addresses{listenTCP: listen, holder: holder, now: now, tenants: make(map[Addr]*tenant), store: store}
}

// network keeps a listener on 0.0.0.0 to IPv4, and one on :: to IPv6: under
// "tcp" the one would be the other.
func network(ip netip.Addr) string {
	if ip.Is4() {
		return "tcp4"
	}
	return "tcp6"
}

// Listener is a host listener: a [relay.Acceptor], or a [udp.Socket]. The zero value is none.
type Listener struct {
	io.Closer
	inode uint64 // in Addresses.ours; 0 for a unix socket
	at    Addr
	kept  bool // in the store
}

// Open opens a listener for an owner, or takes the one that it had in the process before. A program of this host that
// is in the way is a tenant from then on.
func (as *Addresses) Open(h Addr, owner string) (Listener, error) {
	l, err := as.listen(h, owner)
	if h.Proto == "udp" && errors.Is(err, unix.EADDRINUSE) && as.store.Settled() {
		l, err = as.listen(h, owner)
	}
	if errors.Is(err, unix.EADDRINUSE) {
		as.tenantSeen(h)
	}
	return l, err
}

// CloseAll closes listeners, of which any may be none.
func (as *Addresses) CloseAll(listeners ...Listener) {
	for _, l := range listeners {
		if l.Closer != nil {
			as.close(l)
			as.ours.Remove(l.inode)
		}
	}
}

// listen opens a listener. The caller's lock is held until the listener is known to
// be ours, so that no announcement of it can be taken in before.
func (as *Addresses) listen(h Addr, owner string) (Listener, error) {
	l := as.takeKept(h, owner)
	if l == nil && h.Proto == "tcp" && as.listenTCP == nil {
		return as.listenAsOurs(h, owner)
	}
	if l == nil {
		var err error
		if l, err = as.socket(h); err != nil {
			return Listener{}, err
		}
	}
	raw, err := l.SyscallConn()
	if err != nil {
		_ = l.Close()
		return Listener{}, err
	}
	out := Listener{at: h}
	if h.Proto != policy.ProtoUnix {
		if out.inode, err = as.ours.Add(raw); err != nil {
			_ = l.Close()
			return Listener{}, err
		}
	}
	out.kept = as.store.Keep(h.place(), owner, raw)
	switch l := l.(type) {
	case *net.UDPConn:
		if out.Closer, err = udp.NewSocket(l); err != nil {
			_ = l.Close()
		}
	case net.Listener:
		out.Closer, err = relay.NewAcceptor(l)
	}
	if err != nil {
		if out.kept {
			fdstore.End(l)
			as.store.Drop(h.place())
		}
		as.ours.Remove(out.inode)
		return Listener{}, err
	}
	return out, nil
}

// socket is a new one that listens.
func (as *Addresses) socket(h Addr) (socket, error) {
	switch h.Proto {
	case "udp":
		return listenUDP(h.Addr)
	case policy.ProtoUnix:
		// A directory such as ~/.rum need not be there; a failure is told by listening.
		_ = os.MkdirAll(filepath.Dir(h.Path), 0o700)
		return endpoint.ListenSocket(h.Path, 0o600)
	}
	return as.listenTCP(h.Addr)
}

// listenAsOurs opens a TCP listener.
func (as *Addresses) listenAsOurs(h Addr, owner string) (Listener, error) {
	l := Listener{at: h}
	a, err := relay.ListenTCP(h.Addr, func(c syscall.RawConn) (err error) {
		if l.inode, err = as.ours.Add(c); err == nil {
			l.kept = as.store.Keep(h.place(), owner, c)
		}
		return err
	})
	if err != nil {
		return Listener{}, err
	}
	l.Closer = a
	return l, nil
}

// listenUDP opens a host socket. One on :: is for IPv6 alone, as with TCP.
func listenUDP(addr netip.AddrPort) (*net.UDPConn, error) {
	network := "udp6"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	return net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
}

// IsOwn reports whether a listener that a guest announces is ours. It can be, if
// the guest is a container in the host's network. Forwarded, it would lead to
// itself, and keep itself open. Its address would not tell: a VM has the same ones.
func (as *Addresses) IsOwn(l portlist.Listener) bool { return as.ours.Has(l.Inode) }
