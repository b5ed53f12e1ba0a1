package host

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

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
	round     int // of looking for tenants
}

// New returns the addresses of this host, as yet without anything known. listen opens TCP
// listeners, holder names the program that has an address, or gives "", and now is the time;
// each may be nil, for what the kernel says.
func New(listen func(netip.AddrPort) (*net.TCPListener, error), holder func(string, netip.AddrPort) string, now func() time.Time) *Addresses {
	if holder == nil {
		holder = portwatch.Holder
	}
	if listen == nil {
		listen = listenTCP
	}
	if now == nil {
		now = time.Now
	}
	return &Addresses{listenTCP: listen, holder: holder, now: now, tenants: make(map[Addr]*tenant)}
}

func listenTCP(addr netip.AddrPort) (*net.TCPListener, error) {
	// Keep-alives between sockets of one kernel find out nothing.
	c := net.ListenConfig{KeepAlive: -1, Control: relay.ControlTCP}
	c.SetMultipathTCP(false) // its connections inherit less
	l, err := c.Listen(context.Background(), network(addr.Addr()), addr.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
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
}

// Open opens a listener. A program of this host that is in the way is a tenant from then on.
func (as *Addresses) Open(h Addr) (Listener, error) {
	l, err := as.listen(h)
	if errors.Is(err, unix.EADDRINUSE) {
		as.tenantSeen(h)
	}
	return l, err
}

// CloseAll closes listeners, of which any may be none.
func (as *Addresses) CloseAll(listeners ...Listener) {
	for _, l := range listeners {
		if l.Closer != nil {
			l.Close()
			as.ours.Remove(l.inode)
		}
	}
}

// listen opens a listener. The caller's lock is held until the listener is known to
// be ours, so that no announcement of it can be taken in before.
func (as *Addresses) listen(h Addr) (Listener, error) {
	switch h.Proto {
	case "udp":
		return as.listenUDP(h.Addr)
	case policy.ProtoUnix:
		// A directory such as ~/.rum need not be there; a failure is told by listening.
		_ = os.MkdirAll(filepath.Dir(h.Path), 0o700)
		l, err := endpoint.ListenSocket(h.Path, 0o600)
		if err != nil {
			return Listener{}, err
		}
		return accepting(l, 0)
	}
	l, err := as.listenTCP(h.Addr)
	if err != nil {
		return Listener{}, err
	}
	inode, err := as.takeIn(l)
	if err != nil {
		l.Close()
		return Listener{}, err
	}
	a, err := accepting(l, inode)
	if err != nil {
		as.ours.Remove(inode)
	}
	return a, err
}

// listenUDP opens a host socket. One on :: is for IPv6 alone, as with TCP.
func (as *Addresses) listenUDP(addr netip.AddrPort) (Listener, error) {
	network := "udp6"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return Listener{}, err
	}
	inode, err := as.takeIn(conn)
	if err != nil {
		_ = conn.Close()
		return Listener{}, err
	}
	socket, err := udp.NewSocket(conn)
	if err != nil {
		_ = conn.Close()
		as.ours.Remove(inode)
		return Listener{}, err
	}
	return Listener{socket, inode}, nil
}

func accepting(l net.Listener, inode uint64) (Listener, error) {
	a, err := relay.NewAcceptor(l)
	if err != nil {
		return Listener{}, err
	}
	return Listener{a, inode}, nil
}

// takeIn makes a socket one of ours.
func (as *Addresses) takeIn(c syscall.Conn) (inode uint64, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	return as.ours.Add(raw)
}

// IsOwn reports whether a listener that a guest announces is ours. It can be, if
// the guest is a container in the host's network. Forwarded, it would lead to
// itself, and keep itself open. Its address would not tell: a VM has the same ones.
func (as *Addresses) IsOwn(l portlist.Listener) bool { return as.ours.Has(l.Inode) }
