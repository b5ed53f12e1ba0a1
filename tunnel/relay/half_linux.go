package relay

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/relay/sockio"
)

// phase is where one direction is; the package's text draws how it goes on.
type phase uint8

const (
	phaseOpen phase = iota
	phaseDraining
	phaseTold
	phaseCut
	phaseStopped
)

// half is one direction.
type half struct {
	count *atomic.Uint64
	phase phase
	bulk  bool
	low   uint8 // splices in a row that moved little

	held *[]byte // bytes that the destination did not take yet, with their
	from int     // beginning
	to   int     // and end
	pipe *pipe   // likewise when spliced
	left int     // bytes in the pipe
}

func (h *half) blocked() bool { return h.held != nil || h.pipe != nil }

// reads tells whether the source is to be read.
func (h *half) reads() bool { return h.phase == phaseOpen && !h.blocked() }

func (h *half) final() bool {
	return h.phase == phaseTold || h.phase == phaseStopped || h.phase == phaseCut && !h.blocked()
}

// stop is for a destination that takes nothing more.
func (h *half) stop() {
	if h.phase != phaseTold {
		h.phase = phaseStopped
		h.drop()
	}
}

// drop lets go of what is held.
func (h *half) drop() {
	if h.held != nil {
		heldBuffers.Put(h.held)
		h.held = nil
	}
	if h.pipe != nil {
		h.pipe.close() // it holds bytes
		h.pipe = nil
	}
}

// pumpTurns bounds what one direction may move before others get their turn.
const pumpTurns = 4

// pump moves what can be read on one side, and reports whether there was anything.
func (p *Pair) pump(from int) (moved bool) {
	h, src := &p.halves[from], &p.sides[from]
	turns, most := pumpTurns, pipeSize
	if p.sides[0].packets || p.sides[1].packets {
		turns, most = 1, loopBuffer // with four reads a round trip beside took 20 to 30 times as long as alone, with one 3 times
	}
	for range turns {
		var n int
		var err error
		buf := p.loop.buf
		// What is spliced into vsock leaves in packets of 16 to 32 KiB, what is written in packets of 64.
		spliced := h.bulk && !p.sides[1-from].packets && p.loop.takePipe()
		if spliced {
			n, err = splice(src.fd, p.loop.pipe.w, most)
		} else {
			n, err = sockio.Receive(src.fd, buf)
		}
		if spliced && n <= 0 && (err != unix.EAGAIN || !moved) {
			// splice(2) stops before urgent data, which can be read all the same, and tells of an end that is behind it
			// (tcp_read_sock and tcp_splice_read in net/ipv4/tcp.c).
			spliced = false
			src.unproved = src.unproved || err != nil && err != unix.EAGAIN
			n, err = sockio.Receive(src.fd, buf)
		}
		if err == unix.EAGAIN {
			return moved
		}
		if err == nil && n == 0 {
			err = io.EOF
		}
		if !src.opened {
			rest, oerr := src.conn.Open(buf[:max(n, 0)], err)
			if oerr == ErrIncomplete {
				return moved
			}
			if oerr != nil {
				p.fail(oerr)
				return moved
			}
			src.opened = true
			if err == nil && len(rest) == 0 {
				p.checkArrived(from)
				return moved
			}
			buf, n = rest, len(rest)
		}
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			if src.stream != nil {
				src.stream.SourceEnded()
			}
			h.phase = phaseDraining
			p.settle(from, err)
			return moved
		}
		src.conn.Moved(n, 0)
		moved = true
		if spliced {
			p.loop.waiter.Bulk()
			h.pipe, h.left = p.loop.pipe, n
			p.loop.pipe = nil
			p.flush(from)
		} else {
			p.write(from, buf[:n])
		}
		p.checkArrived(from)
		if p.over || !h.reads() {
			return moved
		}
		if !h.grade(n) {
			return moved
		}
	}
	return moved
}

// grade decides from the size of a read how to go on: it reports whether there may be more to read at once.
func (h *half) grade(n int) bool {
	if !h.bulk {
		h.bulk = n == loopBuffer
		return h.bulk
	}
	if n >= loopBuffer/4 {
		h.low = 0
		return true
	}
	if h.low++; h.low == 8 {
		h.bulk, h.low = false, 0
	}
	return false
}

// write writes what was read, and keeps what the destination does not take.
func (p *Pair) write(from int, b []byte) {
	dst := &p.sides[1-from]
	n, err := sockio.Send(dst.fd, b)
	if err != nil && err != unix.EAGAIN {
		p.refused(from, "write", err)
		return
	}
	n = max(n, 0)
	p.wrote(from, n)
	if n == len(b) {
		return
	}
	h := &p.halves[from]
	h.held = heldBuffers.Get().(*[]byte)
	h.from, h.to = 0, copy(*h.held, b[n:])
}

var heldBuffers = sync.Pool{New: func() any { b := make([]byte, loopBuffer); return &b }}

func (p *Pair) wrote(from, n int) {
	p.writes++
	p.sides[1-from].conn.Moved(0, n)
	p.halves[from].count.Add(uint64(n))
}

// flush writes what a direction holds back, as far as the destination takes it.
func (p *Pair) flush(from int) {
	h, dst := &p.halves[from], &p.sides[1-from]
	for h.blocked() {
		var n int
		var err error
		if h.pipe != nil {
			n, err = splice(h.pipe.r, dst.fd, h.left)
		} else {
			n, err = sockio.Send(dst.fd, (*h.held)[h.from:h.to])
		}
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			p.refused(from, "write", err)
			return
		}
		p.wrote(from, n)
		if h.pipe != nil {
			if h.left -= n; h.left == 0 {
				pipes.Put(h.pipe)
				h.pipe = nil
			}
		} else if h.from += n; h.from == h.to {
			heldBuffers.Put(h.held)
			h.held = nil
		}
	}
	if h.phase == phaseDraining {
		p.settle(from, nil)
	}
}

// refused is called when the destination of a direction has failed. The kernel tells once that a connection was reset: who
// reads afterwards reads EOF. EPIPE it says where the end had come before (tcp_reset in net/ipv4/tcp_input.c).
func (p *Pair) refused(from int, what string, err error) {
	dst := &p.sides[1-from]
	if err != unix.EPIPE && err != unix.ENOTCONN {
		dst.unproved = true
	}
	p.broke(1-from, fmt.Errorf("%s: %w", what, err))
}

// settle deals with the end of a direction's source, once everything before it has been passed on.
func (p *Pair) settle(from int, err error) {
	h, src, dst := &p.halves[from], &p.sides[from], &p.sides[1-from]
	if err == nil && src.unproved && src.stream == nil {
		err = unix.ECONNRESET
	}
	if h.blocked() && err == nil {
		return // flush comes back
	}
	switch err := src.conn.ProveEnd(err); {
	case err == ErrEndUnknown:
		return // Notify comes back
	case err != nil:
		p.lost(from, err)
		return
	}
	if dst.conn.EndWrite(p.halves[1-from].phase == phaseTold) {
		// That of a stream fails only if the peer has gone, which is told apart.
		if err := unix.Shutdown(dst.fd, unix.SHUT_WR); err != nil && dst.stream == nil {
			p.refused(from, "shutdown", err)
			return
		}
	}
	h.phase = phaseTold
}
