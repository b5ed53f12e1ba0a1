package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
)

// What a peer may make a session hold or do.
const (
	// maxForgotten is how many streams may be closed on our side and not yet on
	// the peer's.
	maxForgotten = 16 << 10
	// openCost is what a stream is charged with that the peer opens.
	openCost = 20 * time.Microsecond
	// growthCost is what each byte is charged with that the buffer of a stream grows by.
	// Faster than this, what is let go of again would not be collected in time.
	growthCost = time.Nanosecond
	// bufferGrowth is how many times what waits in it a buffer of yamux may be: one that
	// is more than half full is given twice its size (grow in bytes/buffer.go).
	bufferGrowth = 3
	// frameCost is what a frame is charged with that brings no data to a client.
	// 20 Gbit/s need 5,000 window updates a second, and 16,000 are free.
	frameCost = 5 * time.Microsecond
	// thinCost is what a frame of data is charged with if it carries a byte, and thinMost
	// how many bytes one carries that is charged with nothing.
	thinCost = time.Microsecond
	thinMost = 4 << 10
)

// Frame types and flags of yamux (yamux spec.md).
const (
	yamuxWindow = 1
	yamuxPing   = 2

	yamuxSYN = 1
	yamuxACK = 2
	yamuxFIN = 4
	yamuxRST = 8
	// yamuxStop is ours, of sessions with resets: the peer has closed a stream that it had ended before,
	// and reads no more of it. No yamux sees it.
	yamuxStop = yamuxFIN | yamuxRST
)

// guard stands between a connection and yamux, and knows what our agents ever
// send. yamux believes its peer: it answers every ping with a goroutine, keeps what
// comes on streams that nobody reads, and remembers streams for as long as the
// peer does not close them.
//
// What no agent sends is an error of Read, which ends the session. Frames for
// streams that are over here are dropped, and yamux is told that the peer has reset
// them, so that it forgets them. Where more waits than allowed, the stream
// that holds the most is ended.
type guard struct {
	io.ReadWriteCloser
	admit   func(open int) error // whether the peer may open one more stream
	limits  Limits
	peerBit uint32 // the lowest bit of IDs of streams that the peer opens
	resets  bool   // a stream that is closed is reset, unless it has ended on both sides
	work    *budget.Budget
	thin    *budget.Budget
	closed  chan struct{}
	close   sync.Once

	// Used by yamux's receiver only.
	head    [yamuxHeader]byte
	headLen int
	body    int           // bytes of a frame's body that are still to come
	pass    bool          // whether they are for yamux
	owed    time.Duration // for thin frames since the last Read

	writing sync.Mutex // held from the header of a frame that is sent to the end of its body
	outBody int        // the same in the other direction; used by yamux's sender only

	// Of a session with resets; sending is nil in others.
	sending  *sending
	untold   atomic.Int64  // bytes of data that were read, and the peer has not been told so
	someRead chan struct{} // has a token when it is to be told

	mu       sync.Mutex
	flows    map[uint32]*flow
	waiting  int      // bytes, of all flows
	held     int      // bytes that their buffers have room for
	leaving  int      // of those, what streams keep that were ended
	forgets  []header // what yamux is to be told in the peer's name
	lastPeer uint32   // the highest ID of the peer's
	peerOpen int
	gone     int   // flows that are over here and not in the peer
	bad      error // why the connection was closed from here
}

// header is the header of a frame without a body.
type header [yamuxHeader]byte

func newHeader(kind uint8, flags uint16, id uint32) (h header) {
	h[1] = kind
	binary.BigEndian.PutUint16(h[2:], flags)
	binary.BigEndian.PutUint32(h[4:], id)
	return h
}

// newGuard guards a connection. admit is asked for each stream that the peer
// opens.
func newGuard(conn io.ReadWriteCloser, client bool, limits Limits, work *budget.Budget, admit func(open int) error) *guard {
	g := &guard{
		ReadWriteCloser: conn, admit: admit, limits: limits, flows: make(map[uint32]*flow), closed: make(chan struct{}),
		work: work, thin: budget.New(limits.Thin),
	}
	if !client {
		g.peerBit = 1
	}
	return g
}

func (g *guard) Close() error {
	g.close.Do(func() {
		close(g.closed)
		if g.sending != nil {
			g.sending.end()
		}
	})
	return g.ReadWriteCloser.Close()
}

// Read returns whole headers only, of frames that yamux is to see. It is called
// with a buffer of 4 KiB or more, bufio's.
func (g *guard) Read(b []byte) (int, error) {
	if len(b) < yamuxHeader {
		return 0, io.ErrShortBuffer
	}
	for {
		if n := g.forget(b); n > 0 {
			return n, nil
		}
		g.thin.Spend(g.owed)
		g.owed = 0
		if err := errors.Join(g.work.Wait(g.closed), g.thin.Wait(g.closed), g.awaitRelief()); err != nil {
			return 0, g.why(err)
		}
		// Behind what is there of a header, so that there is room for the rest.
		n, err := g.ReadWriteCloser.Read(b[g.headLen:g.until(len(b))])
		kept, bad := g.filter(b, g.headLen, g.headLen+n)
		if bad != nil {
			return kept, bad
		}
		if err != nil {
			err = g.why(err)
		}
		if kept > 0 || err != nil {
			return kept, err
		}
	}
}

// why is the reason that the connection was closed for, if it was from here.
func (g *guard) why(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bad != nil {
		return g.bad
	}
	return err
}

// forget puts what makes yamux forget a stream into b, where a frame can begin.
func (g *guard) forget(b []byte) int {
	if g.headLen > 0 || g.body > 0 {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for len(g.forgets) > 0 && len(b)-n >= yamuxHeader {
		n += copy(b[n:], g.forgets[0][:])
		g.forgets = g.forgets[1:]
	}
	return n
}

// until is how far to read: not beyond the end of a frame if something is to go
// between it and the next.
func (g *guard) until(size int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case len(g.forgets) == 0:
		return size
	case g.body > 0:
		return min(size, g.body)
	}
	return yamuxHeader
}

// filter moves what yamux is to see of b[from:to] to the beginning of b, and
// returns how much that is.
func (g *guard) filter(b []byte, from, to int) (int, error) {
	kept := 0
	for from < to {
		if g.body > 0 {
			n := min(g.body, to-from)
			if g.pass {
				kept += copy(b[kept:], b[from:from+n])
			}
			g.body -= n
			from += n
			continue
		}
		n := copy(g.head[g.headLen:], b[from:to])
		g.headLen += n
		from += n
		if g.headLen < yamuxHeader {
			break
		}
		g.headLen = 0
		var err error
		if g.pass, g.body, err = g.check(); err != nil {
			return kept, err
		}
		if g.pass {
			kept += copy(b[kept:], g.head[:])
		}
	}
	return kept, nil
}

// check looks at a frame's header. It tells whether the frame is for yamux, and
// how long its body is.
func (g *guard) check() (pass bool, body int, err error) {
	kind, flags := g.head[1], binary.BigEndian.Uint16(g.head[2:])
	id, length := binary.BigEndian.Uint32(g.head[4:]), binary.BigEndian.Uint32(g.head[8:])
	switch {
	case g.head[0] != 0 || kind > yamuxPing:
		g.work.Spend(frameCost)
		return true, 0, nil // an end of the session, or an error, that yamux knows
	case kind == yamuxPing:
		return false, 0, errors.New("the other end sent a yamux ping, which no agent does")
	case kind == yamuxData && length > Chunk:
		return false, 0, fmt.Errorf("the other end sent a frame of %d bytes, at most %d are allowed", length, Chunk)
	}
	if g.sending != nil && kind == yamuxWindow && id == 0 {
		g.work.Spend(thinCost)
		g.sending.arrived(int(length))
		return false, 0, nil
	}
	if kind == yamuxData {
		if body = int(length); g.sending != nil {
			g.countRead(body)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.flows[id]
	if flags&yamuxSYN != 0 {
		if f, err = g.opened(id, f); err != nil {
			return false, 0, err
		}
	}
	if f == nil || f.over || body == 0 || id == controlID {
		g.work.Spend(frameCost)
	} else {
		g.owed += thinCost * time.Duration(max(0, thinMost-body)) / thinMost
	}
	if f == nil {
		return false, body, nil // over on both sides, and forgotten
	}
	f.acked = f.acked || flags&yamuxACK != 0
	if kind == yamuxWindow && flags&(yamuxFIN|yamuxRST) == 0 {
		f.window += uint64(length)
		f.look()
	}
	pass = !f.over
	if pass && body > 0 {
		f.waiting += body
		g.waiting += body
		g.hold(f, max(f.held, bufferGrowth*f.waiting))
		g.relieve()
		pass = !f.over
	}
	if g.resets && flags&yamuxStop == yamuxStop && f.finPeer {
		g.stop(f)
		return false, body, nil
	}
	if flags&(yamuxFIN|yamuxRST) != 0 {
		f.finPeer = true
		f.finHere = f.finHere || flags&yamuxRST != 0
		f.reset = f.reset || flags&yamuxRST != 0
		if f.reset && f.conn != nil {
			f.conn.leave()
			if told := f.conn.reset; told != nil && flags&yamuxRST != 0 {
				go told()
			}
		}
		f.look()
		g.settle(f)
	}
	return pass, body, nil
}

// opened is called for a stream that the peer opens; there is the flow of that
// ID. It needs g.mu.
func (g *guard) opened(id uint32, there *flow) (*flow, error) {
	if there != nil || id&1 != g.peerBit || id <= g.lastPeer {
		return nil, fmt.Errorf("the other end opened stream %d, which it cannot", id)
	}
	if err := g.admit(g.peerOpen); err != nil {
		return nil, fmt.Errorf("the other end opened a stream: %w", err)
	}
	g.work.Spend(openCost)
	g.lastPeer = id
	g.peerOpen++
	f := newFlow(id)
	f.peers, f.acked = true, true
	g.flows[id] = f
	return f, nil
}

// Write passes on what yamux sends, a header or a body at a time, and takes in
// what that says about streams.
func (g *guard) Write(b []byte) (int, error) {
	switch {
	case g.outBody > 0:
		g.outBody -= len(b)
	default:
		if g.sending != nil && len(b) == yamuxHeader && b[1] == yamuxData {
			g.sending.wait(int(binary.BigEndian.Uint32(b[8:])))
		}
		g.writing.Lock()
		if len(b) != yamuxHeader || b[1] > yamuxWindow {
			break
		}
		if b[1] == yamuxData {
			g.outBody = int(binary.BigEndian.Uint32(b[8:]))
		}
		g.sent(binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint16(b[2:]))
	}
	n, err := g.ReadWriteCloser.Write(b)
	if err != nil {
		g.outBody = 0 // the session has ended
	}
	if g.outBody == 0 {
		g.writing.Unlock()
	}
	return n, err
}

// sendLast tells the peer that a stream is closed here, or reset, unless it has ended on both sides. yamux has no
// word for the first and does not say the second. It may have to wait as any write does.
func (g *guard) sendLast(f *flow, abort bool) {
	g.mu.Lock()
	ended := f.finished() || g.flows[f.id] != f
	g.mu.Unlock()
	if ended {
		return
	}
	flags := uint16(yamuxStop)
	if abort {
		flags = yamuxRST
	}
	frame := newHeader(yamuxWindow, flags, f.id)
	g.writing.Lock()
	defer g.writing.Unlock()
	_, _ = g.ReadWriteCloser.Write(frame[:]) // an error is one of the session, which the next write or read meets
}

// sent takes in the flags of a frame to the peer.
func (g *guard) sent(id uint32, flags uint16) {
	if flags&(yamuxSYN|yamuxFIN|yamuxRST) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if flags&yamuxSYN != 0 {
		g.flows[id] = newFlow(id)
	}
	f := g.flows[id]
	if f == nil || flags&(yamuxFIN|yamuxRST) == 0 {
		return
	}
	f.finHere = true
	f.finPeer = f.finPeer || flags&yamuxRST != 0
	g.settle(f)
}
