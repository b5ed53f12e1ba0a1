package stream

import (
	"fmt"
	"net"
	"sync"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// EndsStream is an [EndsConn] for a connection without a descriptor, such as a stream of a session
// with another host: two goroutines write and read. What is told while a write is under way
// becomes one write.
type EndsStream struct {
	conn net.Conn
	endRecords
	done    chan struct{} // closed when the connection is lost or closed
	waiting chan struct{} // has a token while there is something to write

	mu  sync.Mutex
	out []byte // not written yet
	err error  // why it was lost; nil before
}

// NewEndsStream takes over a connection.
func NewEndsStream(conn net.Conn, deliver func(wire.EndMessage) (useful bool), work *budget.Budget) *EndsStream {
	c := &EndsStream{conn: conn, endRecords: endRecords{deliver: deliver, work: work}, done: make(chan struct{}), waiting: make(chan struct{}, 1)}
	go c.read()
	go c.write()
	return c
}

// Tell sends a message as soon as those before it are written.
func (c *EndsStream) Tell(m wire.EndMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return
	case len(c.out) > MaxQueue:
		c.end(ErrPeerStalled)
		return
	}
	c.out = m.AppendRecord(c.out)
	select {
	case c.waiting <- struct{}{}:
	default:
	}
}

func (c *EndsStream) write() {
	var free []byte
	for {
		select {
		case <-c.done:
			return
		case <-c.waiting:
		}
		c.mu.Lock()
		batch := c.out
		c.out = free[:0]
		c.mu.Unlock()
		if _, err := c.conn.Write(batch); err != nil {
			c.lost(fmt.Errorf("write: %w", err))
			return
		}
		if free = batch; cap(free) > endsTurn {
			free = nil
		}
	}
}

func (c *EndsStream) read() {
	buf := make([]byte, endsTurn)
	for {
		n, err := c.conn.Read(buf)
		if err == nil {
			err = c.parse(buf[:n])
		}
		if err == nil {
			err = c.work.Wait(c.done)
		}
		if err != nil {
			c.lost(err)
			return
		}
	}
}

func (c *EndsStream) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(err)
}

// end needs c.mu.
func (c *EndsStream) end(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	close(c.done)
	go c.conn.Close() // which may have to wait until the other end is told
}

// Close ends the connection; closing it again does nothing.
func (c *EndsStream) Close() { c.lost(net.ErrClosed) }

// Wait blocks until the connection has ended and tells why.
func (c *EndsStream) Wait() error {
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	return endsError(c.err)
}
