package tunnel

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// spareCount is how many raw connections are dialled in advance: enough
	// for what a browser opens at once.
	spareCount = 8
	// spareLow is how many may be left before the others are replaced, all in
	// one go.
	spareLow = 4
	// spareIdle is how long spares are kept when no stream is opened. The
	// next stream dials for itself and brings them back.
	spareIdle = time.Minute
)

// spares are raw connections that were dialled in advance and have told the
// guest which link they belong to, so that opening a stream takes one write.
type spares struct {
	dial  func(context.Context) (net.Conn, error)
	frame func() []byte

	mu     sync.Mutex
	conns  []net.Conn
	used   time.Time
	closed bool
	wanted chan struct{}
}

func newSpares(dial func(context.Context) (net.Conn, error), frame func() []byte) *spares {
	return &spares{dial: dial, frame: frame, used: time.Now(), wanted: make(chan struct{}, 1)}
}

// take returns the oldest spare, or nil if there is none, and has it replaced.
func (p *spares) take() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = time.Now()
	if len(p.conns) <= spareLow {
		select {
		case p.wanted <- struct{}{}:
		default:
		}
	}
	if len(p.conns) == 0 {
		return nil
	}
	c := p.conns[0]
	p.conns = append(p.conns[:0], p.conns[1:]...)
	return c
}

// run keeps the spares until ctx ends. A failed dial is left to the next
// stream, which then dials for itself.
func (p *spares) run(ctx context.Context) error {
	tick := time.NewTicker(spareIdle / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			p.drop(spareIdle)
		case <-p.wanted:
			p.fill(ctx)
		}
	}
}

func (p *spares) fill(ctx context.Context) {
	for p.missing() && ctx.Err() == nil {
		c, err := p.dial(ctx)
		if err != nil {
			return
		}
		if _, err := c.Write(p.frame()); err != nil {
			_ = c.Close()
			return
		}
		p.mu.Lock()
		if p.closed {
			_ = c.Close()
		} else {
			p.conns = append(p.conns, c)
		}
		p.mu.Unlock()
	}
}

func (p *spares) missing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && len(p.conns) < spareCount
}

// drop closes the spares if none was taken for so long.
func (p *spares) drop(idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.used) < idle {
		return
	}
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// close closes the spares for good.
func (p *spares) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drop(0)
}
