package mux

import (
	"encoding/binary"
	"io"
	"os"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/rum-vm/rum-agent/tunnel/clock"
)

// This file sends data on streams in the place of yamux, which hands each frame to a goroutine that copies and writes it: two
// turns of the scheduler, and on a machine that is not busy two threads that wake up. And whoever sends may have to wait for
// what is under way to another host, which is not to hold up what has no data.

// firstWindow is how much may be sent on a new stream (initialStreamWindow of yamux).
const firstWindow = 256 << 10

// Write sends b. It waits for the window of the stream, within the deadline, and for the connection.
func (c *Conn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for written := 0; ; {
		n, err := c.window(min(len(b)-written, Chunk))
		if err == nil && n > 0 {
			err = c.guard.sendData(c.flow.id, b[written:written+n])
		}
		if err != nil {
			return written, c.translate(err)
		}
		if written += n; written == len(b) {
			return written, nil
		}
	}
}

// WriteReady writes as much as the peer has room for, which may be nothing and is at most a [Chunk]. It waits for the
// connection alone, and not for whoever reads at the other end.
func (c *Conn) WriteReady(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	switch {
	case c.closed.Load():
		return 0, c.closedErr()
	case c.refused.Load():
		return 0, io.ErrClosedPipe
	}
	n, err := c.guard.takeWindow(c.flow, min(len(b), Chunk))
	if err == nil && n > 0 {
		err = c.guard.sendData(c.flow.id, b[:n])
	}
	if err != nil {
		return 0, c.translate(err)
	}
	return n, nil
}

// window waits until some of n bytes may be sent, and takes as many of the window.
func (c *Conn) window(n int) (int, error) {
	for {
		switch {
		case c.closed.Load():
			return 0, c.closedErr()
		case c.refused.Load():
			return 0, io.ErrClosedPipe
		case expired(&c.writeBy):
			return 0, os.ErrDeadlineExceeded
		}
		taken, err := c.guard.takeWindow(c.flow, n)
		if err != nil || taken > 0 || n == 0 {
			return taken, err
		}
		c.awaitWindow()
	}
}

// awaitWindow waits until it is worth another look.
func (c *Conn) awaitWindow() {
	var late <-chan time.Time
	if at := c.writeBy.Load(); at != 0 {
		timer := time.NewTimer(time.Duration(at) - clock.Now())
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-c.flow.room:
	case <-c.guard.closed:
	case <-late:
	}
}

// takeWindow takes up to n bytes of the window of a stream.
func (g *guard) takeWindow(f *flow, n int) (int, error) {
	select {
	case <-g.closed:
		return 0, yamux.ErrSessionShutdown
	default:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case f.reset:
		return 0, yamux.ErrConnectionReset
	case f.finHere:
		return 0, yamux.ErrStreamClosed
	}
	n = int(min(uint64(n), f.window))
	f.window -= uint64(n)
	return n, nil
}

// look has who waits for the window look again.
func (f *flow) look() {
	select {
	case f.room <- struct{}{}:
	default:
	}
}

// sendData sends a frame of data. An error is one of the session, which it ends.
func (g *guard) sendData(id uint32, b []byte) error {
	if g.sending != nil {
		g.sending.wait(len(b))
	}
	head := newHeader(yamuxData, 0, id)
	binary.BigEndian.PutUint32(head[8:], uint32(len(b)))
	g.writing.Lock()
	defer g.writing.Unlock()
	_, err := g.ReadWriteCloser.Write(head[:])
	if err == nil {
		_, err = g.ReadWriteCloser.Write(b)
	}
	if err == nil {
		return nil
	}
	g.mu.Lock()
	if g.bad == nil {
		g.bad = err
	}
	g.mu.Unlock()
	_ = g.ReadWriteCloser.Close()
	return yamux.ErrSessionShutdown
}
