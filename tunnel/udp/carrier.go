package udp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// inbound hands over the frames that arrive on a stream. What is of no use to anybody may
// take some processor time; beyond that the stream is not to be read for a while.
type inbound struct {
	handle func(f wire.DatagramFrame, out *Burst) (useless int, err error)
	work   *budget.Budget
	out    *Burst

	began           time.Duration
	frames, useless int
}

// take hands over a frame, which is to stay as it is until sent is called.
func (in *inbound) take(f wire.DatagramFrame) error {
	if in.frames == 0 {
		in.began = clock.Now()
	}
	in.frames++
	if f.Kind == 0 {
		in.useless++
		return nil
	}
	useless, err := in.handle(f, in.out)
	in.useless += useless
	return err
}

// sent sends what frames have brought, has the peer pay for what was of no use, and reports
// whether there was any.
func (in *inbound) sent() (owes bool) {
	if in.frames == 0 {
		return false
	}
	useless := min(in.useless+in.out.Flush(), in.frames)
	if useless > 0 {
		each := budget.MessageCost + (clock.Now()-in.began)/time.Duration(in.frames)
		in.work.Spend(time.Duration(useless) * each)
	}
	in.frames, in.useless = 0, 0
	return useless > 0
}

// serve writes what is queued and hands over what arrives.
func serve(ctx context.Context, conn Conn, q *queue, work *budget.Budget, handle func(f wire.DatagramFrame, out *Burst) (useless int, err error)) error {
	in := &inbound{handle: handle, work: work, out: NewBurst()}
	defer in.out.free()
	var err error
	if d, ok := conn.(onDescriptor); ok && d.OnDescriptor() {
		err = serveByLoop(ctx, d, q, in)
	} else {
		err = serveByGoroutines(ctx, conn, q, in)
	}
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("ended")
	}
	return fmt.Errorf("datagram stream: %w", err)
}

// serveByGoroutines is for a stream of a session.
func serveByGoroutines(ctx context.Context, conn Conn, q *queue, in *inbound) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { <-gctx.Done(); conn.Abort(); return nil })
	g.Go(func() error { return q.write(gctx, conn) })
	g.Go(func() error {
		frames := wire.NewDatagramReader(conn)
		for {
			f, err := frames.Next()
			if err == nil {
				err = in.take(f)
			}
			if err != nil {
				in.out.Flush()
				return err
			}
			if frames.More() {
				continue
			}
			if in.sent() {
				if err := in.work.Wait(gctx.Done()); err != nil {
					return err
				}
			}
		}
	})
	return g.Wait()
}

// onDescriptor is a stream that a loop can serve: one of [stream.Stream].
type onDescriptor interface {
	Conn
	OnDescriptor() bool
	Answer(ctx context.Context) error
	Detach(*relay.Pair) (*relay.Descriptor, error)
	WhenDead(func())
	Failure() error
}

// serveByLoop is for a raw connection.
func serveByLoop(ctx context.Context, conn onDescriptor, q *queue, in *inbound) error {
	defer conn.Abort()
	if err := conn.Answer(ctx); err != nil {
		return err
	}
	fd, err := conn.Detach(nil)
	if err != nil {
		return err
	}
	defer fd.Close()
	c := &carrier{
		fd: fd, queue: q, in: in, buf: make([]byte, wire.MaxDatagramFrame+readAtOnce), most: readUseless, over: make(chan error, 1),
	}
	conn.WhenDead(func() { c.end(conn.Failure()) })
	c.start()
	select {
	case err = <-c.over:
	case <-ctx.Done():
	}
	c.stop()
	return err
}

// readAtOnce is how much is read from a stream at once: so much that many datagrams leave together, and no more, since the
// loop serves others too; readUseless how much after something that was of no use.
const (
	readAtOnce  = 64 << 10
	readUseless = 4 << 10
)

// carrier is a datagram stream on a raw connection, which a loop serves. Who has something
// to send writes it on the spot, whatever thread that is.
type carrier struct {
	fd    *relay.Descriptor
	queue *queue
	over  chan error // has room for one

	reading sync.Mutex // held while frames are handed over
	in      *inbound
	buf     []byte
	have    int // bytes in buf
	most    int // to be read at once
	done    bool

	writing sync.Mutex
	out     []byte // of batch, what is left to be written
	batch   []byte
	full    bool // the connection takes no more for now
	paused  bool // the peer is to pay first; nothing is read
	stopped bool
}

func (c *carrier) start() {
	c.watch()
	c.queue.flusher.Store(c)
	c.write()
}

// stop returns when nothing is handed over any more.
func (c *carrier) stop() {
	c.queue.flusher.CompareAndSwap(c, nil)
	c.silence()
	c.reading.Lock()
	c.done = true
	c.reading.Unlock()
}

// silence ends what the loop does for it, but for what is under way.
func (c *carrier) silence() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.stopped = true
	c.fd.Unwatch()
}

func (c *carrier) end(err error) {
	select {
	case c.over <- err:
	default:
	}
}

// watch sets what is waited for.
func (c *carrier) watch() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.rewatch()
}

// rewatch needs c.writing.
func (c *carrier) rewatch() {
	switch {
	case c.stopped:
	case c.paused && !c.full:
		c.fd.Unwatch()
	default:
		if err := c.fd.Watch(c, !c.paused, c.full); err != nil {
			c.end(err)
		}
	}
}

// write writes what is queued as far as the connection takes it.
func (c *carrier) write() {
	c.writing.Lock()
	defer c.writing.Unlock()
	for !c.full && !c.stopped {
		if len(c.out) == 0 {
			c.batch = c.queue.take(kept(c.batch))
			if c.out = c.batch; len(c.out) == 0 {
				return
			}
		}
		n, err := c.fd.Send(c.out)
		c.out = c.out[n:]
		switch {
		case err == unix.EAGAIN:
			c.full = true
			c.rewatch()
		case err != nil:
			c.stopped = true
			c.end(err)
		}
	}
}

// Ready is of [relay.Handler].
func (c *carrier) Ready(_ *relay.Loop, read, write bool) {
	if write {
		c.writing.Lock()
		c.full = false
		c.rewatch()
		c.writing.Unlock()
		c.write()
	}
	if read {
		c.read()
	}
}

// read hands over the frames that have come.
func (c *carrier) read() {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.done {
		return
	}
	n, err := c.fd.Receive(c.buf[c.have : c.have+c.most])
	if err == unix.EAGAIN {
		return
	}
	c.have += n
	at := 0
	for err == nil {
		var f wire.DatagramFrame
		var size int
		if f, size, err = wire.SplitDatagram(c.buf[at:c.have]); err != nil || size > c.have-at {
			break
		}
		at += size
		err = c.in.take(f)
	}
	owes := c.in.sent()
	if err == io.EOF && c.have > at {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		c.done = true
		c.silence()
		c.end(err)
		return
	}
	c.have = copy(c.buf, c.buf[at:c.have])
	if c.most = readAtOnce; owes {
		c.most = readUseless
		c.pause(c.in.work.Pause())
	}
}

// pause has nothing read for a while, until the peer has paid.
func (c *carrier) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.paused = true
	c.rewatch()
	time.AfterFunc(d, func() {
		if again := c.in.work.Pause(); again > 0 {
			c.pause(again) // others of the peer's have spent meanwhile
			return
		}
		c.writing.Lock()
		defer c.writing.Unlock()
		c.paused = false
		c.rewatch()
	})
}
