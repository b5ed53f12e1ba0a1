package stream

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"golang.org/x/sys/unix"
)

const (
	// poolFill is how many raw connections are dialled in advance: enough
	// for what a browser opens at once.
	poolFill = 8
	// poolLow is how many may be left before the others are replaced, all in
	// one go.
	poolLow = 4
	// poolMost is how many are kept where those of streams that have ended
	// come back.
	poolMost = 32
	// poolIdle is how long connections are kept when no stream is opened. The
	// next stream dials for itself and brings them back.
	poolIdle = time.Minute
)

// Pool are raw connections that have told the guest which link they belong to,
// so that opening a stream takes one write: dialled in advance, or of a stream
// that has ended.
type Pool struct {
	dial  func(context.Context) (net.Conn, error)
	frame func() []byte

	mu     sync.Mutex
	fds    []int // oldest first
	used   time.Time
	closed bool
	wanted chan struct{}
}

// NewPool returns an empty pool, whose connections come from dial and begin with a
// frame. [Pool.Run] fills it.
func NewPool(dial func(context.Context) (net.Conn, error), frame func() []byte) *Pool {
	return &Pool{dial: dial, frame: frame, used: time.Now(), wanted: make(chan struct{}, 1)}
}

// Take returns a connection that is ready and has it replaced; ok is false if there is none.
func (p *Pool) Take() (fd int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = time.Now()
	if len(p.fds) <= poolLow {
		select {
		case p.wanted <- struct{}{}:
		default:
		}
	}
	if len(p.fds) == 0 {
		return -1, false
	}
	last := len(p.fds) - 1
	fd = p.fds[last]
	p.fds = p.fds[:last]
	return fd, true
}

// Put takes in a connection on which nothing is under way.
func (p *Pool) Put(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.fds) >= poolMost {
		_ = unix.Close(fd)
		return
	}
	p.fds = append(p.fds, fd)
}

// Run keeps the pool filled until ctx ends. A failed dial is left to the next
// stream, which then dials for itself.
func (p *Pool) Run(ctx context.Context) error {
	tick := time.NewTicker(poolIdle / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			p.drop(poolIdle)
		case <-p.wanted:
			p.fill(ctx)
		}
	}
}

func (p *Pool) fill(ctx context.Context) {
	for p.missing() && ctx.Err() == nil {
		c, err := p.dial(ctx)
		if err != nil {
			return
		}
		if _, err = c.Write(p.frame()); err != nil {
			_ = c.Close()
			return
		}
		fd, err := relay.TakeDescriptor(c)
		if err != nil {
			_ = c.Close()
			return
		}
		if relay.OutOfDescriptors(fd) != nil {
			_ = unix.Close(fd)
			return
		}
		p.Put(fd)
	}
}

func (p *Pool) missing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && len(p.fds) < poolFill
}

// drop closes the connections if none was taken for so long.
func (p *Pool) drop(idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.used) < idle {
		return
	}
	for _, fd := range p.fds {
		_ = unix.Close(fd)
	}
	p.fds = nil
}

// Close closes the pool and its connections for good.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drop(0)
}
