package stream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// EndsConn carries what is told about the ends of streams on a connection of its
// own, where the endpoint allows many. It belongs to the link as the session
// does: when one is lost, so is the other. It is apart because every stream has
// two ends to tell and most are told in a loop, which can write and read a
// descriptor in place; through yamux each would take four goroutines in turn.
type EndsConn struct {
	raw  *relay.Descriptor
	done chan struct{} // closed when the connection is lost or closed

	// Used by who reads: the loop's thread, or a goroutine while the loop does not watch.
	endRecords
	flooded bool // the peer has sent more than it may

	mu      sync.Mutex
	out     []byte // what the kernel did not take yet
	offLoop bool   // no loop watches, and a goroutine will read
	closed  bool
	err     error // why it was lost
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
	raw, err := relay.NewDescriptor(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c := &EndsConn{raw: raw, done: make(chan struct{}), endRecords: endRecords{deliver: deliver, work: work}}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.arm(); c.closed {
		return nil, c.err
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
		if len(c.out) > 0 && !c.closed && !c.offLoop {
			c.arm()
		}
	}
}

// flush needs c.mu.
func (c *EndsConn) flush() {
	n, err := c.raw.Send(c.out)
	if err != nil && err != syscall.EAGAIN {
		c.end(fmt.Errorf("write: %w", err))
		return
	}
	c.out = append(c.out[:0], c.out[n:]...)
}

// arm has a loop watch for what can be done. It needs c.mu.
func (c *EndsConn) arm() {
	if err := c.raw.Watch(c, true, len(c.out) > 0); err != nil {
		c.end(err)
	}
}

// Ready is of [relay.Handler].
func (c *EndsConn) Ready(l *relay.Loop, read, write bool) {
	if write {
		c.mu.Lock()
		if !c.closed && len(c.out) > 0 {
			if c.flush(); len(c.out) == 0 && !c.closed {
				c.arm()
			}
		}
		c.mu.Unlock()
	}
	switch {
	case !read:
	case c.flooded:
		c.leaveLoop(0)
	default:
		if owed, _ := c.read(l.Scratch()[:endsTurn]); owed > 0 {
			c.flooded = true
			c.leaveLoop(owed)
		}
	}
}

// read takes in one turn of what there is, and tells whether there was anything, and
// how long the peer is not to be read for it.
func (c *EndsConn) read(buf []byte) (owed time.Duration, some bool) {
	n, err := c.raw.Receive(buf)
	if err == syscall.EAGAIN {
		return 0, false
	}
	if err == nil {
		err = c.parse(buf[:n])
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.end(err)
		return 0, false
	}
	return c.work.Pause(), true
}

// leaveLoop has a goroutine read, after a while. Once a peer has flooded, the loop does no
// more than tell that there is something: everybody's data would wait behind that.
func (c *EndsConn) leaveLoop(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && !c.offLoop {
		c.offLoop = true
		c.raw.Unwatch()
		time.AfterFunc(after, c.readOffLoop)
	}
}

// readOffLoop reads a turn at a time, and leaves the rest to the loop when there is no more.
func (c *EndsConn) readOffLoop() {
	owed, some := c.read(make([]byte, endsTurn))
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && len(c.out) > 0 {
		c.flush()
	}
	switch {
	case c.closed:
	case some:
		time.AfterFunc(owed, c.readOffLoop)
	default:
		c.offLoop = false
		c.arm()
	}
}

// endRecords takes in what a peer tells of ends. It is used by one goroutine at a time.
type endRecords struct {
	deliver func(wire.EndMessage) (useful bool)
	work    *budget.Budget
	in      []byte // a record that has come in part
}

func (c *endRecords) parse(b []byte) error {
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
	c.raw.Close()
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
	return endsError(c.err)
}

func endsError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return ErrClosedByPeer
	}
	return err
}
