package stream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

// EndsConn carries what is told about the ends of streams on a connection of its
// own, where the endpoint allows many. It belongs to the link as the session
// does: when one is lost, so is the other. It is apart because every stream has
// two ends to tell and most are told in a loop, which can write and read a
// descriptor in place; through yamux each would take four goroutines in turn.
type EndsConn struct {
	relay.Registration
	fd      int
	deliver func(wire.EndMessage) (useful bool)
	done    chan struct{} // closed when the connection is lost or closed

	// Used by the loop's thread only.
	in   []byte // a record that has come in part
	work *budget.Budget

	mu     sync.Mutex
	out    []byte // what the kernel did not take yet
	paused bool   // not read for a while
	closed bool
	err    error // why it was lost
}

const (
	// endsTurn is how many bytes are read at a time. Others wait in the loop.
	endsTurn = 240 * wire.EndRecord
	// endCost is what a record that is of no use to any stream is charged with.
	endCost = time.Microsecond
)

// MaxQueue bounds in bytes what waits for a peer that does not read. Ends of
// streams are what comes most, 21 bytes each.
const MaxQueue = 4 << 20

// ErrPeerStalled is that more waits.
var ErrPeerStalled = errors.New("the other end has stopped reading the control stream")

// ErrClosedByPeer is how a link ends whose other end goes in order.
var ErrClosedByPeer = errors.New("the other end closed the connection")

// NewEndsConn takes over a connection.
func NewEndsConn(conn net.Conn, deliver func(wire.EndMessage) (useful bool), work *budget.Budget) (*EndsConn, error) {
	fd, err := relay.TakeDescriptor(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c := &EndsConn{fd: fd, deliver: deliver, done: make(chan struct{}), work: work}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := relay.PickLoop().AddFD(c, fd, unix.EPOLLIN); err != nil {
		c.end(err)
		return nil, err
	}
	return c, nil
}

// Tell sends a message, now or as soon as the kernel takes it.
func (c *EndsConn) Tell(m wire.EndMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return
	case len(c.out) > MaxQueue:
		c.end(ErrPeerStalled)
		return
	}
	c.out = m.AppendRecord(c.out)
	if len(c.out) == wire.EndRecord {
		c.flush()
		if len(c.out) > 0 && !c.closed {
			c.arm()
		}
	}
}

// flush needs c.mu.
func (c *EndsConn) flush() {
	n, err := relay.Send(c.fd, c.out)
	if err != nil && err != unix.EAGAIN {
		c.end(fmt.Errorf("write: %w", err))
		return
	}
	c.out = append(c.out[:0], c.out[max(n, 0):]...)
}

// arm has the loop watch for what can be done. It needs c.mu.
func (c *EndsConn) arm() {
	if err := c.Loop.Watch(&c.Registration, c.fd, 0, unix.EPOLL_CTL_MOD, c.events()); err != nil {
		c.end(err)
	}
}

// events needs c.mu.
func (c *EndsConn) events() (events uint32) {
	if !c.paused {
		events |= unix.EPOLLIN
	}
	if len(c.out) > 0 {
		events |= unix.EPOLLOUT
	}
	return events
}

// Handle is called by the loop.
func (c *EndsConn) Handle(_ int, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		c.mu.Lock()
		if !c.closed && len(c.out) > 0 {
			if c.flush(); len(c.out) == 0 && !c.closed {
				c.arm()
			}
		}
		c.mu.Unlock()
	}
	if events&^unix.EPOLLOUT != 0 {
		c.read()
	}
}

func (c *EndsConn) read() {
	buf := c.Loop.Buf[:endsTurn]
	n, err := relay.Receive(c.fd, buf)
	switch {
	case err == unix.EAGAIN:
		return
	case err == nil && n == 0:
		err = io.EOF
	}
	if err == nil {
		err = c.parse(buf[:n])
	}
	owed := c.work.Pause()
	if err == nil && owed <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.end(err)
	} else if !c.closed {
		c.paused = true
		c.leaveData()
		time.AfterFunc(owed, c.resume)
	}
}

// leaveData moves the connection of a peer that floods it to a loop where nobody's
// data waits behind it. It needs c.mu, and is for the loop's thread.
func (c *EndsConn) leaveData() {
	slow := relay.FloodLoop()
	if c.Loop == slow {
		c.arm()
		return
	}
	_ = c.Loop.Watch(&c.Registration, c.fd, 0, unix.EPOLL_CTL_DEL, 0)
	c.Loop.Remove(&c.Registration)
	c.Loop = nil
	if err := slow.AddFD(c, c.fd, c.events()); err != nil {
		c.end(err)
	}
}

// resume reads again what was not read for a while.
func (c *EndsConn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.paused = false
		c.arm()
	}
}

func (c *EndsConn) parse(b []byte) error {
	b = append(c.in, b...)
	for len(b) >= wire.EndRecord {
		m, known, err := wire.EndOf([wire.EndRecord]byte(b))
		if err != nil {
			return err
		}
		if !known || !c.deliver(m) {
			c.work.Spend(endCost)
		}
		b = b[wire.EndRecord:]
	}
	c.in = append(c.in[:0], b...)
	return nil
}

// end needs c.mu.
func (c *EndsConn) end(err error) {
	if c.closed {
		return
	}
	c.closed, c.err = true, err
	if c.Loop != nil {
		c.Loop.Remove(&c.Registration)
	}
	_ = unix.Close(c.fd)
	close(c.done)
}

// Close ends the connection; closing it again does nothing.
func (c *EndsConn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(net.ErrClosed)
}

// Wait blocks until the connection has ended and tells why.
func (c *EndsConn) Wait() error {
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.err, io.EOF) || errors.Is(c.err, unix.ECONNRESET) {
		return ErrClosedByPeer
	}
	return c.err
}
