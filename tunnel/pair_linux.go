package tunnel

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// endpointFD is what a pair needs of each of the two connections it joins, once
// it owns their descriptors. Nothing here blocks.
type endpointFD interface {
	// detach hands over the descriptor. The pair is told of what befalls the
	// connection by other ways than its descriptor.
	detach(p *pair) (int, error)
	// open is given what is read, or why nothing can be, until it returns nil:
	// what comes first may not be the connection's own. It returns what is.
	// EAGAIN is to wait for more.
	open(b []byte, err error) ([]byte, error)
	// moved accounts for bytes read and written.
	moved(read, written int)
	// judgeEnd judges how reading ended: nil is a clean end, errEndUnknown
	// one that the pair will be told about.
	judgeEnd(err error) error
	// endWrite ends the sending direction; last says that the other has ended.
	endWrite(fd int, last bool) error
	// wasReset tells whether the connection was reset although its reading
	// direction had ended before.
	wasReset(fd int) bool
	// release closes the descriptor; with an error the other end is reset.
	release(fd int, err error)
}

// pair joins two descriptors in a loop. Its lock is taken by the loop's thread
// and by whoever has news of a stream.
type pair struct {
	place
	done func(error)

	mu     sync.Mutex
	sides  [2]side
	halves [2]half // halves[i] reads from sides[i] and writes to the other
	over   bool
	err    error
}

type side struct {
	conn    endpointFD
	stream  *Stream // the same, or nil if it is a socket of a program's
	fd      int
	opened  bool
	watched bool
	events  uint32 // waited for, beside a hang-up, which the kernel always tells
	hung    bool   // the hang-up has been told, and nothing follows it
}

// half is one direction.
type half struct {
	count *atomic.Uint64
	bulk  bool
	low   uint8 // splices in a row that moved little
	eof   bool  // the source has ended
	ended bool  // and the destination has been told

	held *[]byte // bytes that the destination did not take yet, with their
	from int     // beginning
	to   int     // and end
	pipe *pipe   // likewise when spliced
	left int     // bytes in the pipe
}

func (h *half) blocked() bool { return h.held != nil || h.pipe != nil }

// join hands two connections to a loop. done is called once, when both
// directions have ended or one has failed.
func join(client, guest endpointFD, n *Counters, done func(error)) {
	joinIn(pickLoop(), client, guest, nil, n, done)
}

// joinIn hands two connections to l. early is what the guest's connection has
// brought already.
func joinIn(l *loop, client, guest endpointFD, early []byte, n *Counters, done func(error)) {
	p := &pair{done: done}
	for i, conn := range []endpointFD{client, guest} {
		stream, _ := conn.(*Stream)
		p.sides[i] = side{conn: conn, stream: stream, fd: -1}
	}
	p.halves[0].count, p.halves[1].count = &n.Out, &n.In
	p.update(func() {
		for i := range p.sides {
			s := &p.sides[i]
			fd, err := s.conn.detach(p)
			if err != nil {
				p.fail(err)
				return
			}
			s.fd = fd
		}
		if err := l.add(p); err != nil {
			p.fail(err)
			return
		}
		if len(early) > 0 {
			guest.moved(len(early), 0)
			p.write(1, early)
		}
		p.checkNews() // what came before the pair could be told
	})
}

// update runs f under the lock and reports the end if f brought it.
func (p *pair) update(f func()) {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return
	}
	f()
	over := p.over
	p.mu.Unlock()
	if over {
		p.done(p.err)
	}
}

// abort resets both connections.
func (p *pair) abort(err error) { p.update(func() { p.fail(err) }) }

// news is called when something happened to a connection that its descriptor
// does not show.
func (p *pair) news() { p.update(p.checkNews) }

func (p *pair) checkNews() {
	for i := range p.halves {
		if s := p.sides[i].stream; s != nil {
			if err := s.failure(); err != nil {
				p.fail(err)
				return
			}
		}
		if h := &p.halves[i]; !p.over && h.eof && !h.ended {
			p.settle(i, nil)
		}
		p.checkArrived(i)
	}
	p.rearm()
}

// checkArrived ends a direction of which everything has come. A stream's raw
// connection need not end for that.
func (p *pair) checkArrived(from int) {
	h := &p.halves[from]
	s := p.sides[from].stream
	if s == nil || p.over || h.eof {
		return
	}
	switch all, err := s.arrived(); {
	case err != nil:
		p.fail(err)
	case all:
		h.eof = true
		p.settle(from, nil)
	}
}

// handle takes in what the kernel says of one side.
func (p *pair) handle(from int, events uint32) {
	const hangup = unix.EPOLLHUP | unix.EPOLLERR
	p.update(func() {
		in, out := &p.halves[from], &p.halves[1-from]
		if out.blocked() && events&(unix.EPOLLOUT|hangup) != 0 {
			p.flush(1 - from)
		}
		if !p.over && !in.eof && !in.blocked() && events&(unix.EPOLLIN|hangup) != 0 {
			p.pump(from)
		}
		s := &p.sides[from]
		if !p.over && in.eof && events&hangup != 0 {
			if s.conn.wasReset(s.fd) {
				p.fail(fmt.Errorf("after the end of its sending: %w", unix.ECONNRESET))
			} else {
				s.hung = true
			}
		}
		p.rearm()
	})
}

// rearm tells the kernel what is waited for now. A side of which nothing is wanted
// is not watched at all, because the kernel repeats a hang-up for as long as
// it is; but for one that has ended and may still be reset.
func (p *pair) rearm() {
	if p.over {
		return
	}
	for i := range p.sides {
		s, h := &p.sides[i], &p.halves[i]
		var want uint32
		if !h.eof && !h.blocked() {
			want |= unix.EPOLLIN
		}
		if p.halves[1-i].blocked() {
			want |= unix.EPOLLOUT
		}
		watch := want != 0 || h.eof && !s.hung
		op := unix.EPOLL_CTL_MOD
		switch {
		case !watch && !s.watched, watch && s.watched && want == s.events:
			continue
		case !watch:
			op = unix.EPOLL_CTL_DEL
		case !s.watched:
			op = unix.EPOLL_CTL_ADD
		}
		s.watched, s.events = watch, want
		if err := p.loop.watch(&p.place, s.fd, i, op, want); err != nil {
			p.fail(err)
			return
		}
	}
}

// pumpTurns bounds what one direction may move before others get their turn.
const pumpTurns = 4

// pump moves what can be read on one side, and reports whether there was anything.
func (p *pair) pump(from int) (moved bool) {
	h, src := &p.halves[from], &p.sides[from]
	for range pumpTurns {
		var n int
		var err error
		buf := p.loop.buf
		spliced := h.bulk && p.loop.takePipe()
		if spliced {
			n, err = splice(src.fd, p.loop.pipe.w, pipeSize)
		} else {
			n, err = receive(src.fd, buf)
		}
		if err == unix.EAGAIN {
			return moved
		}
		if err == nil && n == 0 {
			err = io.EOF
		}
		if !src.opened {
			rest, oerr := src.conn.open(buf[:max(n, 0)], err)
			if oerr == unix.EAGAIN {
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
				src.stream.shut = true
			}
			h.eof = true
			p.settle(from, err)
			return moved
		}
		src.conn.moved(n, 0)
		moved = true
		if spliced {
			p.loop.waiter.bulk = true
			h.pipe, h.left = p.loop.pipe, n
			p.loop.pipe = nil
			p.flush(from)
		} else {
			p.write(from, buf[:n])
		}
		p.checkArrived(from)
		if p.over || h.eof || h.blocked() {
			return moved
		}
		if !h.grade(n) {
			return moved
		}
	}
	return moved
}

// grade decides from the size of a read how to go on: it reports whether there
// may be more to read at once.
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
func (p *pair) write(from int, b []byte) {
	dst := &p.sides[1-from]
	n, err := send(dst.fd, b)
	if err != nil && err != unix.EAGAIN {
		p.fail(fmt.Errorf("write: %w", err))
		return
	}
	n = max(n, 0)
	p.wrote(from, n)
	if dst.stream == nil {
		p.loop.follow(p, dst.fd)
	}
	if n == len(b) {
		return
	}
	h := &p.halves[from]
	h.held = heldBuffers.Get().(*[]byte)
	h.from, h.to = 0, copy(*h.held, b[n:])
}

var heldBuffers = sync.Pool{New: func() any { b := make([]byte, loopBuffer); return &b }}

func (p *pair) wrote(from, n int) {
	p.sides[1-from].conn.moved(0, n)
	p.halves[from].count.Add(uint64(n))
}

// flush writes what a direction holds back, as far as the destination takes it.
func (p *pair) flush(from int) {
	h, dst := &p.halves[from], &p.sides[1-from]
	for h.blocked() {
		var n int
		var err error
		if h.pipe != nil {
			n, err = splice(h.pipe.r, dst.fd, h.left)
		} else {
			n, err = send(dst.fd, (*h.held)[h.from:h.to])
		}
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			p.fail(fmt.Errorf("write: %w", err))
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
	if h.eof && !h.ended {
		p.settle(from, nil)
	}
}

// settle deals with the end of a direction's source, once everything before it
// has been passed on.
func (p *pair) settle(from int, err error) {
	h, src, dst := &p.halves[from], &p.sides[from], &p.sides[1-from]
	if h.blocked() {
		return // flush comes back
	}
	switch err := src.conn.judgeEnd(err); {
	case err == errEndUnknown:
		return // news comes back
	case err != nil:
		p.fail(err)
		return
	}
	if err := dst.conn.endWrite(dst.fd, p.halves[1-from].ended); err != nil {
		p.fail(err)
		return
	}
	h.ended = true
	if p.halves[0].ended && p.halves[1].ended {
		p.end(nil)
	}
}

func (p *pair) fail(err error) {
	if !p.over {
		p.end(err)
	}
}

// end lets go of everything.
func (p *pair) end(err error) {
	p.over, p.err = true, err
	if p.loop != nil {
		p.loop.remove(&p.place)
	}
	for i := range p.sides {
		s := &p.sides[i]
		if s.stream != nil && s.watched && s.stream.again != nil {
			// It may live on, and what befalls it then is not for this pair.
			_ = p.loop.watch(&p.place, s.fd, i, unix.EPOLL_CTL_DEL, 0)
		}
		s.conn.release(s.fd, err)
		s.fd = -1
	}
	for i := range p.halves {
		h := &p.halves[i]
		if h.held != nil {
			heldBuffers.Put(h.held)
			h.held = nil
		}
		if h.pipe != nil {
			h.pipe.close() // it holds bytes
			h.pipe = nil
		}
	}
}
