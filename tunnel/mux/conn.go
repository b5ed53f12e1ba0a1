package mux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/rum-vm/rum-agent/tunnel/clock"
)

// Chunk is how much is written to a yamux stream at a time. With yamux's
// 12-byte header it makes 64 KiB, the largest packet that virtio-vsock sends
// (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE, linux/virtio_vsock.h), and it lets the
// frames of other streams through in between.
const Chunk = 64<<10 - yamuxHeader

// Conn makes a connection with the usual meaning of Close, CloseWrite and
// deadlines of a yamux stream, whose Close is a half-close and whose deadlines
// are looked at only when it has to wait.
type Conn struct {
	*yamux.Stream
	guard           *guard
	flow            *flow
	reading         sync.Mutex   // two readers of a yamux stream can wait for each other for ever
	writing         sync.Mutex   // what one Write sends stays together
	readBy, writeBy atomic.Int64 // deadlines by package clock, 0 for none
	taken           atomic.Int64 // bytes of the last read, which the reader has until the next one
	evicted         func(error)  // is told that the guard ends the stream; nil for nobody. Guarded by guard.mu
	reset           func()       // is told that the peer resets it; the same
	refused         atomic.Bool  // the peer does not read any more
	closed          atomic.Bool
	left            sync.Once
	gone            chan struct{} // closed when it is closed here, or reset by the peer
	stopped         chan struct{} // closed when the peer has closed it, and does not read any more
}

// leave closes gone.
func (c *Conn) leave() { c.left.Do(func() { close(c.gone) }) }

func (c *Conn) Read(b []byte) (int, error) {
	if c.closed.Load() {
		return 0, c.closedErr()
	}
	if expired(&c.readBy) {
		return 0, os.ErrDeadlineExceeded
	}
	c.guard.consumed(c.flow, int(c.taken.Swap(0)))
	c.reading.Lock()
	n, err := c.Stream.Read(b)
	c.reading.Unlock()
	c.taken.Store(int64(n))
	return n, c.translate(err)
}

// Quiet reports whether the peer has sent nothing that was not read yet, and has not ended the stream.
func (c *Conn) Quiet() bool {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	return !c.closed.Load() && !c.flow.finPeer && !c.flow.over && c.flow.waiting <= int(c.taken.Load())
}

// translate turns yamux's errors into those of a connection.
func (c *Conn) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case c.closed.Load():
		return c.closedErr()
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case errors.Is(err, yamux.ErrConnectionReset), c.guard.resets && errors.Is(err, io.EOF) && !c.guard.endedByPeer(c.flow):
		return errReset // to yamux the end of a session is one of each stream
	}
	return err
}

var errReset = fmt.Errorf("the stream was reset: %w", syscall.ECONNRESET)

// CloseWrite ends the sending direction.
func (c *Conn) CloseWrite() error { return c.Stream.Close() }

// closedErr is the error of a connection that was closed here, by the guard or
// whoever else.
func (c *Conn) closedErr() error {
	if err := c.guard.failure(c.flow); err != nil {
		return err
	}
	return os.ErrClosed
}

// evict ends the connection for the guard, whose reason it is.
func (c *Conn) evict(why error) {
	c.guard.mu.Lock()
	evicted := c.evicted
	c.guard.mu.Unlock()
	if evicted != nil {
		evicted(why)
	}
	c.Abort()
}

// WhenEvicted has f called when the guard ends the stream.
func (c *Conn) WhenEvicted(f func(error)) {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	c.evicted = f
}

// WhenReset has f called, by a goroutine of its own, when the peer resets the stream.
func (c *Conn) WhenReset(f func()) {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	if c.reset = f; c.flow.reset {
		go f()
	}
}

// Close ends both directions here. What has come is thrown away, also where a
// reader that waits for something else still holds on to the connection. Of a session with resets
// the peer is told that what it sends is not read.
func (c *Conn) Close() error { return c.close(false) }

// Abort is Close, and resets the stream in a session with resets.
func (c *Conn) Abort() { _ = c.close(true) }

func (c *Conn) close(abort bool) error {
	first := !c.closed.Swap(true)
	c.leave()
	_ = c.Stream.SetReadDeadline(longAgo)
	c.flow.look()
	var err error
	if !abort || !c.guard.resets {
		err = c.Stream.Close()
	}
	if first && c.guard.resets {
		c.guard.sendLast(c.flow, abort)
	}
	c.reading.Lock()
	var junk [4096]byte
	for {
		if n, err := c.Stream.Read(junk[:]); n == 0 || err != nil {
			break
		}
	}
	c.Stream.Shrink()
	c.reading.Unlock()
	c.guard.done(c.flow)
	return err
}

// stopGrace is how long the peer may take to end its direction of a stream that is not read here any more.
const stopGrace = 10 * time.Second

// AwaitReset waits until the peer resets the stream, or the session ends, and returns that, or until
// the stream is closed here, and returns nil. It is for a session with resets, and for a direction whose end was read: a
// peer that has closed the stream has reset it after a while.
func (c *Conn) AwaitReset() error {
	select {
	case <-c.gone:
	case <-c.guard.closed:
		return errReset
	case <-c.stopped:
		select {
		case <-c.gone:
		case <-c.guard.closed:
		case <-time.After(stopGrace):
		}
	}
	if c.closed.Load() {
		return nil
	}
	return errReset
}

// Drain has nothing to wait for: what was written is on its way before a reset is.
func (c *Conn) Drain() {}

// Moved has nothing to count.
func (c *Conn) Moved(read, written int) {}

// Shrink lets go of the buffer of a stream that once had much waiting, if nothing does now.
// It is for whoever reads, between two reads, and has done with what the last one gave.
func (c *Conn) Shrink() {
	c.guard.consumed(c.flow, int(c.taken.Swap(0)))
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	c.guard.shrink(c.flow)
}

// RefuseWrites makes writes fail, also one that waits for the window.
func (c *Conn) RefuseWrites() {
	c.refused.Store(true)
	c.flow.look()
}

// SetReadDeadline sets the deadline of Read; zero means none.
func (c *Conn) SetReadDeadline(t time.Time) error {
	setDeadline(&c.readBy, t)
	return c.Stream.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline of Write; zero means none.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	setDeadline(&c.writeBy, t)
	c.flow.look()
	return nil
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

var longAgo = time.Unix(1, 0)

func setDeadline(d *atomic.Int64, t time.Time) {
	if t.IsZero() {
		d.Store(0)
		return
	}
	d.Store(int64(clock.Now() + time.Until(t)))
}

func expired(d *atomic.Int64) bool {
	at := d.Load()
	return at != 0 && int64(clock.Now()) >= at
}
