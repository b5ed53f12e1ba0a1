package tunnel

import (
	"errors"
	"fmt"
)

// muxLimits bound in bytes what is kept of what has come on the streams of a link.
type muxLimits struct {
	// waiting is what was not taken yet by whom it is for. yamux's windows alone would
	// allow a mebibyte for each stream.
	waiting int
	// held is for the buffers that yamux keeps for streams which once had much
	// waiting. It allocates them anew where that is not so any more.
	held int
}

var (
	trustedLimits = muxLimits{waiting: 16 << 20, held: 24 << 20}
	// strangerLimits are a guest agent's for a host without a key, who may be any user
	// there and have maxKeyless links.
	strangerLimits = muxLimits{waiting: 4 << 20, held: 6 << 20}
)

// errTooMuchWaits ends the stream that holds the most when too much waits.
var errTooMuchWaits = errors.New("reset: too much waits for connections of this VM that do not read, and most of it was this one's")

// muxFlow is what the guard knows of a stream.
type muxFlow struct {
	id               uint32
	peers            bool // opened by the peer
	acked            bool
	finHere, finPeer bool
	over             bool  // nobody is to read it any more
	told             bool  // yamux is told that the peer has reset it
	waiting          int   // bytes that have come and are not done with
	held             int   // the most that ever waited, which its buffer keeps room for
	err              error // why it was ended from here, if it was
	conn             *muxConn
}

// finished tells whether both sides have closed the stream.
func (f *muxFlow) finished() bool { return f.finHere && f.finPeer }

// settle forgets a flow of which nothing can come any more, and nothing waits. It
// needs g.mu.
func (g *muxGuard) settle(f *muxFlow) {
	if !f.finished() || f.waiting > 0 || g.flows[f.id] != f {
		return
	}
	delete(g.flows, f.id)
	g.hold(f, 0)
	if f.peers {
		g.peerOpen--
	}
	if f.over {
		g.gone--
	}
}

// hold notes how large the buffer of a stream may be. Where all together are too
// large, those that are empty go. It needs g.mu.
func (g *muxGuard) hold(f *muxFlow, size int) {
	g.held += size - f.held
	f.held = size
	if g.held <= g.limits.held {
		return
	}
	for _, f := range g.flows {
		if f.waiting == 0 && f.held > 0 && f.conn != nil {
			f.conn.Stream.Shrink()
			g.held -= f.held
			f.held = 0
		}
	}
}

// controlID is the stream that the host opens first.
const controlID = 1

// relieve ends the stream that holds the most. It needs g.mu.
func (g *muxGuard) relieve() error {
	var most *muxFlow
	for _, f := range g.flows {
		if f.id != controlID && (most == nil || f.waiting > most.waiting) {
			most = f
		}
	}
	if most == nil || most.waiting == 0 {
		return fmt.Errorf("more than %d MiB wait on the link", g.limits.waiting>>20)
	}
	most.err = errTooMuchWaits
	g.end(most)
	if most.conn != nil {
		go most.conn.evict(most.err) // tells the peer, and may have to wait for that
	}
	return nil
}

// end makes a stream be over here: what comes on it is dropped, and what has come
// counts no more. It needs g.mu.
func (g *muxGuard) end(f *muxFlow) {
	if f.over {
		return
	}
	f.over = true
	g.waiting -= f.waiting
	f.waiting = 0
	g.hold(f, 0)
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
func (g *muxGuard) done(f *muxFlow) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.told || g.flows[f.id] != f {
		return
	}
	f.told = true
	g.end(f)
	flags := uint16(yamuxRST)
	if !f.acked {
		flags |= yamuxACK // else yamux counts it as one being opened, for ever
	}
	g.resets = append(g.resets, newMuxHead(yamuxWindow, flags, f.id))
}

// consumed is called when the reader of a stream has done with bytes.
func (g *muxGuard) consumed(f *muxFlow, n int) {
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
func (g *muxGuard) failure(f *muxFlow) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f.err
}

// attach returns the flow of a stream that conn will read.
func (g *muxGuard) attach(id uint32, conn *muxConn) *muxFlow {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.flows[id]
	if f == nil {
		f = &muxFlow{id: id, over: true} // ended on both sides already
	}
	f.conn = conn
	return f
}
