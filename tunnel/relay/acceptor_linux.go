package relay

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"golang.org/x/sys/unix"
)

// Acceptor is a listener that is served by a loop: from there to a raw
// connection that is ready, a new client passes through no goroutine.
type Acceptor struct {
	registration
	fd     int
	named  namedListener // a unix socket, whose file goes with it; else nil
	serve  func(*Client)
	failed func(error)
	lost   func(error)
	// prepare is for connections that do not inherit what a listener is set to:
	// those of Go's own, which are of Multipath TCP.
	prepare bool
	remote  bool // clients may be on other machines

	mu     sync.Mutex // held while a client is served
	closed bool
	delay  time.Duration
}

// Delays after an accept that failed, mostly for want of descriptors. The
// connection waits in the kernel's queue meanwhile.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// namedListener listens on a unix socket whose file goes with it.
type namedListener interface {
	net.Listener
	// WhenLost has lost called, once, when the file that leads here is gone.
	WhenLost(lost func(error))
	// Leave closes it here, and leaves the file.
	Leave() error
}

// NewAcceptor takes over a TCP listener, or one on a unix socket that knows its file.
func NewAcceptor(l net.Listener) (*Acceptor, error) {
	reserve.StockLast()
	a := &Acceptor{}
	var err error
	if tcp, ok := l.(*net.TCPListener); ok {
		if a.fd, err = takeDescriptor(tcp); err == nil {
			protocol, _ := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
			a.prepare = protocol != unix.IPPROTO_TCP
			a.prepareTCP(tcp.Addr().(*net.TCPAddr).IP.IsLoopback())
		}
	} else {
		a.named = l.(namedListener)
		a.fd, err = copyDescriptor(l)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen on %v: %w", l.Addr(), err)
	}
	return a, nil
}

// prepareTCP sets what connections inherit (sk_clone in net/core/sock.c, tcp_ca_openreq_child in net/ipv4/tcp_minisocks.c).
func (a *Acceptor) prepareTCP(loopback bool) {
	prepareTCP(a.fd)
	_ = unix.SetsockoptInt(a.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if a.remote = !loopback; a.remote {
		keepAlive(a.fd)
	} else {
		sendUnpaced(a.fd)
	}
}

// Serve begins to accept. serve is called with each client, failed is told why one
// could not be accepted, and lost, once at most, why none will be any more. None of
// them must block.
func (a *Acceptor) Serve(serve func(*Client), failed, lost func(error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serve, a.failed, a.lost = serve, failed, lost
	err := pickLoop().addFD(a, a.fd, unix.EPOLLIN)
	if err == nil && a.named != nil {
		a.named.WhenLost(lost)
	}
	return err
}

func (a *Acceptor) arm(events uint32) {
	_ = a.loop.watch(&a.registration, a.fd, 0, unix.EPOLL_CTL_MOD, events)
}

// Close closes the listener, for every process that has it. The kernel resets
// connections that nobody has accepted yet. No client is served any more once
// Close has returned.
func (a *Acceptor) Close() error { return a.close(true) }

// Leave closes the listener here alone: another process that has it goes on, and
// connections that nobody has accepted yet wait for that.
func (a *Acceptor) Leave() error { return a.close(false) }

func (a *Acceptor) close(everywhere bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return net.ErrClosed
	}
	a.closed = true
	if a.loop != nil {
		// Closing would do that only if no other process has the listener.
		_ = a.loop.watch(&a.registration, a.fd, 0, unix.EPOLL_CTL_DEL, 0)
		a.loop.remove(&a.registration)
	}
	if everywhere {
		_ = unix.Shutdown(a.fd, unix.SHUT_RDWR)
	}
	err := unix.Close(a.fd)
	switch {
	case a.named != nil && everywhere:
		err = a.named.Close()
	case a.named != nil:
		err = a.named.Leave()
	}
	return err
}

// handle accepts one connection; if there are more, the kernel says so again.
func (a *Acceptor) handle(*Loop, int, uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	fd, from, err := unix.Accept4(a.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch err {
	case nil:
		a.delay = 0
		if err := reserve.Check(fd); err != nil {
			resetOnClose(fd)
			_ = unix.Close(fd)
			a.failed(err)
			return
		}
		if a.prepare {
			prepareTCP(fd)
			if a.remote {
				keepAlive(fd)
			}
		}
		a.serve(&Client{newSocket(fd), addrOf(from)})
	case unix.EAGAIN, unix.EINTR, unix.ECONNABORTED:
		// Gone again before it was accepted.
	case unix.EMFILE:
		a.failed(&reserve.SpentError{Limit: reserve.Limit()})
		if !reserve.LendLast(a.turnAway) {
			a.pause()
		}
	case unix.EBADF, unix.EINVAL:
		// It listens no more: somebody else has shut the socket down.
		_ = a.loop.watch(&a.registration, a.fd, 0, unix.EPOLL_CTL_DEL, 0)
		a.lost(fmt.Errorf("accept: %w", err))
	default:
		a.failed(fmt.Errorf("accept: %w", err))
		a.pause()
	}
}

// turnAway resets a client that cannot be accepted otherwise, and reports whether it did.
// It needs a.mu.
func (a *Acceptor) turnAway() bool {
	fd, _, err := unix.Accept4(a.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return false
	}
	resetOnClose(fd)
	_ = unix.Close(fd)
	return true
}

// pause needs a.mu.
func (a *Acceptor) pause() {
	a.delay = min(max(2*a.delay, acceptBackoffMin), acceptBackoffMax)
	a.arm(0)
	time.AfterFunc(a.delay, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.closed {
			a.arm(unix.EPOLLIN)
		}
	})
}

// Client is a connection that an [Acceptor] has accepted, or of [NewClient]. It is to be given to
// a link, made a Conn, or aborted.
type Client struct {
	Socket
	from netip.AddrPort
}

// NewClient makes a client of a connection: one of TCP that came to a listener of [ControlTCP]'s,
// or one of a unix socket. If it fails, the connection is left as it was.
func NewClient(c net.Conn) (*Client, error) {
	d, err := NewDescriptor(c)
	if err != nil {
		return nil, err
	}
	client := &Client{Socket: Socket{d}}
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		sendUnpaced(d.fd)
		from := tcp.AddrPort()
		client.from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	}
	return client, nil
}

// From is the address of the client, the zero AddrPort on a unix socket.
func (c *Client) From() netip.AddrPort { return c.from }

// To is the address that the client has connected to, the zero AddrPort on a unix socket.
func (c *Client) To() netip.AddrPort {
	return c.d.to()
}

// Early reads what the client has sent by now, without waiting. Nothing is not
// an error, and neither is the client's EOF: a relay will see that too.
func (c *Client) Early(buf []byte) ([]byte, error) {
	n, err := c.d.Receive(buf)
	switch err {
	case nil, io.EOF, unix.EAGAIN:
		return buf[:n], nil
	}
	return nil, &ClientError{err}
}

// Conn makes it a Conn, which it is from then on.
func (c *Client) Conn() Conn { return &socketConn{netSocket: c.d.conn()} }

func addrOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
