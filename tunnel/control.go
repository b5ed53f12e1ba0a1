package tunnel

import (
	"bufio"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// controlConn is what a control stream needs of [mux.Conn].
type controlConn interface {
	io.ReadWriter
	// Shrink lets go of the buffer of a stream on which nothing waits.
	Shrink()
}

const (
	// largeMessage is from how many bytes on a message is one of those that come once,
	// with a thousand listeners: the buffers that it takes are not kept for the next.
	largeMessage = 16 << 10
	// shrinkEvery is the least time between two times that they are let go of: whoever sends
	// such messages all the time does not have them made anew all the time.
	shrinkEvery = 10 * time.Second
)

// control is the control stream of a link. Messages to send are queued, never
// waited for, and written by one goroutine, so that a burst of them becomes one
// write.
type control struct {
	conn  controlConn
	ended <-chan struct{} // closed with the session
	work  *budget.Budget  // for what serves no client
	heard atomic.Int64    // when anything last arrived, by clock

	mu      sync.Mutex
	queue   []byte
	full    bool
	latest  wire.Message  // of [control.sendLatest]; nil for none
	waiting chan struct{} // has a token while the queue is not empty
}

func newControl(conn controlConn, ended <-chan struct{}, work *budget.Budget) *control {
	c := &control{conn: conn, ended: ended, work: work, waiting: make(chan struct{}, 1)}
	c.heard.Store(int64(clock.Now()))
	return c
}

// send queues a message.
func (c *control) send(m wire.Message) {
	c.mu.Lock()
	if len(c.queue) > stream.MaxQueue {
		c.full = true
	} else {
		c.queue = wire.AppendMessage(c.queue, m)
	}
	c.mu.Unlock()
	select {
	case c.waiting <- struct{}{}:
	default:
	}
}

// sendLatest queues a message in place of the one it was given before, if that has not
// been sent yet: a peer that does not read, like a paused guest, has one waiting at most.
func (c *control) sendLatest(m wire.Message) {
	c.mu.Lock()
	c.latest = m
	c.mu.Unlock()
	select {
	case c.waiting <- struct{}{}:
	default:
	}
}

// write sends what is queued until ctx ends.
func (c *control) write(ctx context.Context) error {
	var free []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.waiting:
		}
		c.mu.Lock()
		batch, full := c.queue, c.full
		if c.latest != nil {
			batch, c.latest = wire.AppendMessage(batch, c.latest), nil
		}
		c.queue = free[:0]
		c.mu.Unlock()
		if full {
			return stream.ErrPeerStalled
		}
		if _, err := c.conn.Write(batch); err != nil {
			return err
		}
		if free = batch; cap(free) > largeMessage {
			free = nil
		}
	}
}

// read hands every message that arrives to handle until one of them fails. Those
// that are not of use to a client of this side, who has to do something for each,
// may take some processor time; beyond that the peer is not read for a while.
func (c *control) read(handle func(wire.Message) (useful bool, err error)) error {
	r := wire.MessageReader{R: bufio.NewReader(c.conn)}
	for shrunk := clock.Now() - shrinkEvery; ; {
		b, err := r.Next()
		if err != nil {
			return err
		}
		began, useful := clock.Now(), false
		c.heard.Store(int64(began))
		if len(b) > largeMessage && began-shrunk >= shrinkEvery {
			shrunk, r.Buf = began, nil
			c.conn.Shrink()
		}
		m, err := wire.DecodeMessage(b)
		if err != nil {
			return err
		}
		if m != nil {
			if useful, err = handle(m); err != nil {
				return err
			}
		}
		if useful {
			continue
		}
		c.work.Spend(budget.MessageCost + time.Duration(len(b))*budget.ByteCost + clock.Now() - began)
		if err := c.work.Wait(c.ended); err != nil {
			return err
		}
	}
}

// lastHeard is when anything last arrived, by package clock.
func (c *control) lastHeard() time.Duration { return time.Duration(c.heard.Load()) }
