package page

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/rum-vm/rum-agent/tunnel/relay/sockio"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// clients accepts connections of clients, as many at a time as there is room for.
type clients struct {
	net.Listener
	ctx  context.Context // of who accepts
	page *Page
	room *semaphore.Weighted
}

// Accept turns connections away that would take the descriptors kept for other things.
func (l *clients) Accept() (net.Conn, error) {
	if err := l.room.Acquire(l.ctx, 1); err != nil {
		return nil, net.ErrClosed
	}
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			l.room.Release(1)
			return nil, err
		}
		if reserve.CheckConn(c) == nil {
			tcp := c.(*net.TCPConn)
			accepted := &client{TCPConn: tcp, socket: sockio.New(tcp), left: sync.OnceFunc(func() { l.room.Release(1) })}
			accepted.first = func() ([]byte, error) { return l.page.direct(l.ctx, accepted) }
			return accepted, nil
		}
		_ = c.Close()
	}
}

// client is the connection of one. It is known here how it has to end, which a [http.Server] cannot be told.
type client struct {
	*net.TCPConn
	socket sockio.Conn
	left   func()

	// first is called once, when the server reads, and answers without it what it can; nil once it was called. What
	// that has read besides, the server has not read yet.
	first  func() (unread []byte, err error)
	unread []byte

	mu     sync.Mutex
	asked  *kept       // was asked what the server reads first; nil for none
	kept   *kept       // brought the last answer and waits for another request; nil for none
	stale  *time.Timer // closes that; nil before there was one
	closed bool
	ended  bool   // it sends no more
	tell   func() // is called once it does not; nil for nobody
}

// Read has a [http.Server] not see what is answered without it. It tells it of no end while a request is answered, when
// that reads a single byte: it would give the request up, and a client that sends no more may wait for its answer.
func (c *client) Read(b []byte) (int, error) {
	if first := c.first; first != nil {
		c.first = nil
		var err error
		if c.unread, err = first(); err != nil {
			return 0, err
		}
	}
	if len(c.unread) > 0 {
		n := copy(b, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	c.unread = nil // and the buffer that it is of
	n, err := c.socket.Read(b)
	if err == io.EOF && len(b) == 1 {
		c.mu.Lock()
		c.ended = true
		if c.tell != nil {
			c.tell()
		}
		c.mu.Unlock()
		err = c.socket.AwaitReset()
	}
	return n, err
}

// wait returns once there is something to read, which it leaves to be read.
func (c *client) wait() {
	if len(c.unread) == 0 {
		_ = c.socket.Wait() // what has gone wrong is seen by who reads
	}
}

// setAsked has a service's connection wait for whoever passes its request on, to whom takeAsked gives it.
func (c *client) setAsked(service *kept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = service
}

// takeAsked is the connection that waits; nil for none.
func (c *client) takeAsked() *kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = nil
	return asked
}

// forgetAsked is called when nobody passes the request on any more.
func (c *client) forgetAsked() {
	if asked := c.takeAsked(); asked != nil {
		_ = asked.Close()
	}
}

// whenEnded has f called once the client sends no more, or now. It replaces what was to be called before; nil is nothing.
func (c *client) whenEnded(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tell = f; f != nil && c.ended {
		f()
	}
}

func (c *client) Write(b []byte) (int, error) { return c.socket.Write(b) }

// Close makes room for another.
func (c *client) Close() error {
	defer c.left()
	c.forgetAsked()
	c.mu.Lock()
	c.closed = true
	if c.stale != nil {
		c.stale.Stop()
	}
	c.mu.Unlock()
	c.forgetKept()
	return c.TCPConn.Close()
}

// cut has the client see a reset when the connection is closed. Without one it would take what it has for all:
// an answer to HTTP/1.0 may end where its connection does, and other protocols may have no other end.
func (c *client) cut() { _ = c.SetLinger(0) }

// addresses are those of the client, and of the page that it has connected to.
func (c *client) addresses() (client, at netip.AddrPort) {
	return c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
}

type clientKey struct{}

// withClient is for [http.Server.ConnContext].
func withClient(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// clientOf is the connection that a request came by, which others of HTTP/2 may share.
func clientOf(ctx context.Context) *client {
	c, _ := ctx.Value(clientKey{}).(*client)
	return c
}
