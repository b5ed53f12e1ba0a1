package mux

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
)

// Limits bound in bytes what is kept of what has come on the streams of a session.
type Limits struct {
	// Waiting is what was not taken yet by whom it is for. yamux's windows alone would
	// allow a mebibyte for each stream.
	Waiting int
	// Held is for the buffers that yamux keeps for streams which once had much
	// waiting. Those of streams that have nothing waiting are let go of first.
	Held int
	// Thin is the processor time for frames of data that carry little, which an
	// interactive program sends, but not a hundred thousand a second.
	Thin budget.Limits
}

// errTooMuchWaits ends the stream that holds the most when too much waits.
var errTooMuchWaits = errors.New("reset: too much waits for connections of this VM that do not read, and most of it was this one's")

// flow is what the guard knows of a stream.
type flow struct {
	id               uint32
	peers            bool // opened by the peer
	acked            bool
	finHere, finPeer bool
	over             bool  // nobody is to read it any more
	leaving          bool  // ended, and its buffer is not let go of yet
	told             bool  // yamux is told that the peer has reset it
	reset            bool  // the peer has reset it
	stopped          bool  // the peer has closed it
	waiting          int   // bytes that have come and are not done with
	held             int   // how large its buffer may be, by the most that ever waited
	err              error // why it was ended from here, if it was
	owner            any   // whose stream it is; nil for one on its own
	conn             *Conn
	window           uint64        // bytes that may be sent
	room             chan struct{} // has a token when who waits for that is to look again
}

// whose is the owner of a stream, or the stream itself.
func (f *flow) whose() any {
	if f.owner != nil {
		return f.owner
	}
	return f
}

// BelongTo says whose the stream is, as a value that can be compared: where too much waits, that of others is not ended for it.
func (c *Conn) BelongTo(owner any) {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	c.flow.owner = owner
}

func newFlow(id uint32) *flow {
	return &flow{id: id, window: firstWindow, room: make(chan struct{}, 1)}
}

// finished tells whether both sides have closed the stream.
func (f *flow) finished() bool { return f.finHere && f.finPeer }

// settle forgets a flow of which nothing can come any more, and nothing waits. It
// needs g.mu.
func (g *guard) settle(f *flow) {
	if !f.finished() || f.waiting > 0 || g.flows[f.id] != f {
		return
	}
	delete(g.flows, f.id)
	if f.conn == nil {
		g.hold(f, 0)
	}
	if f.peers {
		g.peerOpen--
	}
	if f.over {
		g.gone--
	}
}

// hold notes how large the buffer of a stream may be. Where all together are too
// large, those that are empty go. It needs g.mu.
func (g *guard) hold(f *flow, size int) {
	if size > f.held {
		g.work.Spend(time.Duration(size-f.held) * growthCost)
	}
	g.held += size - f.held
	f.held = size
	if g.held <= g.limits.Held {
		return
	}
	for _, f := range g.flows {
		g.shrink(f)
	}
}

// shrink lets go of the buffer of a stream that has nothing waiting. It needs g.mu.
func (g *guard) shrink(f *flow) {
	if f.waiting == 0 && f.held > 0 && f.conn != nil && !f.over {
		f.conn.Stream.Shrink()
		g.held -= f.held
		f.held = 0
	}
}

// controlID is the stream that the host opens first.
const controlID = 1

// relieve ends streams until what waits, and the buffers of those that are left, are
// within the limits. It needs g.mu.
func (g *guard) relieve() {
	for g.waiting > g.limits.Waiting || g.held-g.leaving > g.limits.Held {
		if !g.endLargest() {
			return
		}
	}
}

const (
	// reliefMost is how long streams that were ended may keep their buffers, where those
	// are too large together, and reliefLook the time between two looks. One whose
	// reader is just about to tell the peer that it has read waits until that reads.
	reliefMost = 5 * time.Second
	reliefLook = 5 * time.Millisecond
)

// awaitRelief waits until streams that were ended have let go of their buffers.
func (g *guard) awaitRelief() error {
	tooMuch := func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.held > g.limits.Held
	}
	for began := clock.Now(); tooMuch(); {
		if clock.Now()-began > reliefMost {
			return fmt.Errorf("more than %d MiB are held for connections of this VM that ended, because it does not read", g.limits.Held>>20)
		}
		select {
		case <-g.closed:
			return budget.ErrEnded
		case <-time.After(reliefLook):
		}
	}
	return nil
}

// endLargest ends the stream of which the most waits, or whose buffer is the largest, of
// the owner of whom that holds the most. It reports whether there is one. It needs g.mu.
func (g *guard) endLargest() bool {
	size := func(f *flow) int { return f.held }
	if g.waiting > g.limits.Waiting {
		size = func(f *flow) int { return f.waiting }
	}
	owned := make(map[any]int)
	each := func(do func(f *flow)) {
		for _, f := range g.flows {
			if f.id != controlID && !f.over {
				do(f)
			}
		}
	}
	each(func(f *flow) { owned[f.whose()] += size(f) })
	var most *flow
	each(func(f *flow) {
		if most == nil || cmp.Or(cmp.Compare(owned[f.whose()], owned[most.whose()]), cmp.Compare(size(f), size(most))) > 0 {
			most = f
		}
	})
	if most == nil || size(most) == 0 {
		return false
	}
	most.err = errTooMuchWaits
	g.end(most)
	if most.conn != nil {
		go most.conn.evict(most.err) // tells the peer, and may have to wait for that
	}
	return true
}

// end makes a stream be over here: what comes on it is dropped, and what has come
// counts no more. It needs g.mu.
func (g *guard) end(f *flow) {
	if f.over {
		return
	}
	f.over = true
	g.waiting -= f.waiting
	f.waiting = 0
	if f.conn == nil {
		g.hold(f, 0)
	} else {
		g.leaving += f.held // its reader may still be held up, and with it the buffer
		f.leaving = true
	}
	if g.flows[f.id] != f {
		return
	}
	if g.gone++; g.gone > maxForgotten && g.bad == nil {
		g.bad = fmt.Errorf("the other end leaves %d streams open that are closed here", maxForgotten)
		_ = g.ReadWriteCloser.Close()
	}
	g.settle(f)
}

// done is called when a stream was closed here, in both directions. It makes yamux
// forget it.
func (g *guard) done(f *flow) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.leaving {
		g.leaving -= f.held
		f.leaving = false
	}
	g.hold(f, 0)
	if f.told || g.flows[f.id] != f {
		return
	}
	f.told = true
	if g.resets {
		f.finHere, f.finPeer = true, true // the peer is told so, and forgets it too
	}
	g.end(f)
	flags := uint16(yamuxRST)
	if !f.acked {
		flags |= yamuxACK // else yamux counts it as one being opened, for ever
	}
	g.forgets = append(g.forgets, newHeader(yamuxWindow, flags, f.id))
}

// consumed is called when the reader of a stream has done with bytes.
func (g *guard) consumed(f *flow, n int) {
	if n == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !f.over {
		f.waiting -= n
		g.waiting -= n
		g.settle(f)
	}
}

// failure is why a stream was ended by the guard, or nil.
func (g *guard) failure(f *flow) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f.err
}

// stop takes in that the peer does not read a stream any more. It needs g.mu.
func (g *guard) stop(f *flow) {
	if f.stopped {
		return
	}
	if f.stopped = true; f.conn != nil {
		close(f.conn.stopped)
		f.conn.RefuseWrites()
	}
}

// endedByPeer reports whether the peer has ended its direction of a stream.
func (g *guard) endedByPeer(f *flow) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f.finPeer && !f.reset
}

// attach returns the flow of a stream that conn will read.
func (g *guard) attach(id uint32, conn *Conn) *flow {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.flows[id]
	if f == nil {
		f = newFlow(id)
		f.over, f.finHere = true, true // ended on both sides already
	}
	f.conn = conn
	if f.reset {
		conn.leave()
	}
	if f.stopped {
		close(conn.stopped)
		conn.RefuseWrites()
	}
	return f
}
