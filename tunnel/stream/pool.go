package stream

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// poolFill is how many connections are dialled in advance: enough
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

// Pool are connections that have told the guest which link they belong to,
// so that opening a stream takes one write: dialled in advance, or of a stream
// that has ended.
type Pool struct {
	dial  func(context.Context) (net.Conn, error)
	frame func() []byte

	mu     sync.Mutex
	ready  []Carrier // oldest first
	used   time.Time
	expiry *time.Timer // runs while there are any; nil before
	closed bool
	wanted chan struct{}
}

// NewPool returns an empty pool, whose connections come from dial and begin with a
// frame. [Pool.Run] fills it.
func NewPool(dial func(context.Context) (net.Conn, error), frame func() []byte) *Pool {
	return &Pool{dial: dial, frame: frame, used: time.Now(), wanted: make(chan struct{}, 1)}
}

// Take returns a connection that is ready and has it replaced; ok is false if there is none.
func (p *Pool) Take() (conn Carrier, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = time.Now()
	if len(p.ready) <= poolLow {
		select {
		case p.wanted <- struct{}{}:
		default:
		}
	}
	if len(p.ready) == 0 {
		return Carrier{}, false
	}
	last := len(p.ready) - 1
	conn, p.ready[last] = p.ready[last], Carrier{}
	p.ready = p.ready[:last]
	return conn, true
}

// Put takes in a connection on which nothing is under way.
func (p *Pool) Put(conn Carrier) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.ready) >= poolMost {
		conn.Close()
		return
	}
	if p.expiry == nil {
		p.expiry = time.AfterFunc(poolIdle, p.expire)
	}
	p.ready = append(p.ready, conn)
}

// expire closes the connections if none was taken for poolIdle.
func (p *Pool) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := poolIdle - time.Since(p.used); left > 0 && !p.closed {
		p.expiry.Reset(left)
		return
	}
	p.drop()
	p.expiry = nil
}

// Run keeps the pool filled until ctx ends. A failed dial is left to the next
// stream, which then dials for itself.
func (p *Pool) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
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
		conn, err := NewCarrier(c)
		if err != nil {
			_ = c.Close()
			return
		}
		p.Put(conn)
	}
}

func (p *Pool) missing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && len(p.ready) < poolFill
}

// drop closes the connections. It needs p.mu.
func (p *Pool) drop() {
	for _, conn := range p.ready {
		conn.Close()
	}
	p.ready = nil
}

// Close closes the pool and its connections for good.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.expiry != nil {
		p.expiry.Stop()
	}
	p.drop()
}
