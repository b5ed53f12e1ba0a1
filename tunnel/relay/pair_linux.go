package relay

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FD is what a pair needs of each of the two connections it joins, once
// it owns their descriptors. Nothing here blocks.
type FD interface {
	// Detach hands over the descriptor. The pair is told of what befalls the
	// connection by other ways than its descriptor.
	Detach(p *Pair) (*Descriptor, error)
	// Open is given what is read, or why nothing can be, until it returns nil:
	// what comes first may not be the connection's own. It returns what is.
	// ErrIncomplete is to wait for more.
	Open(b []byte, err error) ([]byte, error)
	// Moved accounts for bytes read and written.
	Moved(read, written int)
	// ProveEnd judges how reading ended: nil is a clean end, ErrEndUnknown
	// one that the pair will be told about.
	ProveEnd(err error) error
	// EndWrite is called when the sending direction ends; last says that the other has
	// ended. It reports whether that of the descriptor is to be shut down.
	EndWrite(last bool) (shut bool)
	// Release takes the descriptor back, nil if Detach did not hand it over, and closes
	// it or keeps it for another use; with an error the other end is reset.
	Release(d *Descriptor, err error)
}

// Stream is an [FD] that is told apart from its descriptor how the connection
// ends: a stream of a link.
type Stream interface {
	FD
	// Failure is why the stream is dead, or nil.
	Failure() error
	// WasAborted tells whether the peer has told of a reset.
	WasAborted() bool
	// Arrived tells whether everything has come that the peer told it had sent.
	Arrived() (bool, error)
	// SourceEnded is called when a direction of the descriptor has ended.
	SourceEnded()
	// Reusable tells whether the descriptor may live on after the stream.
	Reusable() bool
	// OnDescriptor tells whether there is a descriptor at all.
	OnDescriptor() bool
	// WhenDead has a function called when the stream dies, or now.
	WhenDead(func())
	// Progress changes when something moves.
	Progress() uint64
}

// ErrIncomplete says that what comes before a connection's own bytes is not all there.
var ErrIncomplete = errors.New("more is to come")

// ErrEndUnknown says that the peer has not told yet how its direction ended.
var ErrEndUnknown = errors.New("the end has not been told yet")

// ErrResetByPeer is that the peer of a stream has told of a reset.
var ErrResetByPeer = fmt.Errorf("stream reset by the other end: %w", unix.ECONNRESET)

// Pair joins two descriptors in a loop. Its lock is taken by the loop's thread
// and by whoever notifies it of a stream.
//
// A pair begins with both directions open, and ends when both are final: well
// if both are told, else with a reset of both sides. Why it will be a reset is
// known (why) as soon as one side is broken: the direction into that side is stopped,
// and what the side has brought still goes to the other, within a bound.
type Pair struct {
	registration
	done func(error)

	mu     sync.Mutex
	sides  [2]side
	halves [2]half // halves[i] reads from sides[i] and writes to the other
	over   bool
	why    error // why the pair ends with a reset; nil as long as none is due
	vague  bool  // why may be explained better
	err    error // how it ended

	writes uint64      // counts, for progress
	look   *time.Timer // runs once a reset is due
	drain  Drain
}

type side struct {
	conn     FD
	stream   Stream      // the same, or nil if it is a socket of a program's
	from     *Descriptor // where fd was taken from
	fd       int         // the pair's own, used under its lock
	events   uint32      // waited for, beside a hang-up, which the kernel always tells
	opened   bool
	watched  bool
	hung     bool // the hang-up has been told, and nothing follows it
	packets  bool // what is written at once leaves as one packet, and is as much as can be: vsock
	unproved bool // a write took the kernel's word for a reset: an EOF of a program is none
}

// Join hands two connections to a loop. done is called once, when both
// directions have ended or one has failed.
func Join(client, guest FD, n *Counters, done func(error)) {
	pickLoop().Join(client, guest, nil, n, done)
}

// Join is [Join] in this loop. early is what the guest's connection has brought already.
func (l *Loop) Join(client, guest FD, early []byte, n *Counters, done func(error)) {
	p := &Pair{done: done}
	for i, conn := range []FD{client, guest} {
		stream, _ := conn.(Stream)
		p.sides[i] = side{conn: conn, stream: stream, fd: -1}
	}
	p.halves[0].count, p.halves[1].count = &n.Out, &n.In
	p.update(func() {
		for i := range p.sides {
			if err := p.sides[i].take(p); err != nil {
				p.fail(err)
				return
			}
		}
		if err := l.add(p); err != nil {
			p.fail(err)
			return
		}
		if len(early) > 0 {
			guest.Moved(len(early), 0)
			p.write(1, early)
		}
		p.checkStreams() // what came before the pair could be told
	})
}

// take makes the descriptor the pair's.
func (s *side) take(p *Pair) (err error) {
	if s.from, err = s.conn.Detach(p); err != nil {
		return err
	}
	if s.fd, err = s.from.take(); err == nil && s.stream != nil {
		domain, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		s.packets = err == nil && domain == unix.AF_VSOCK
	}
	return err
}

// release gives it back.
func (s *side) release(err error) {
	if s.fd >= 0 {
		s.from.give(s.fd)
		s.fd = -1
	}
	s.conn.Release(s.from, err)
}

// update runs f under the lock and reports the end if f brought it.
func (p *Pair) update(f func()) {
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
func (p *Pair) abort(err error) { p.update(func() { p.fail(err) }) }

// Notify is called when something happened to a connection that its descriptor
// does not show.
func (p *Pair) Notify() { p.update(p.checkStreams) }

func (p *Pair) checkStreams() {
	for i := range p.halves {
		if s := p.sides[i].stream; s != nil {
			if err := s.Failure(); err != nil {
				p.fail(err)
				return
			}
			if s.WasAborted() {
				p.broke(i, ErrResetByPeer)
			}
		}
		if h := &p.halves[i]; !p.over && h.phase == phaseDraining {
			p.settle(i, nil)
		}
		p.checkArrived(i)
	}
	p.rearm()
}

// checkArrived ends a direction of which everything has come. A stream's raw
// connection need not end for that.
func (p *Pair) checkArrived(from int) {
	h := &p.halves[from]
	s := p.sides[from].stream
	if s == nil || p.over || h.phase != phaseOpen {
		return
	}
	switch all, err := s.Arrived(); {
	case err != nil:
		p.lost(from, err)
	case all:
		h.phase = phaseDraining
		p.settle(from, nil)
	}
}

// handle takes in what the kernel says of one side.
func (p *Pair) handle(_ *Loop, from int, events uint32) {
	const hangup = unix.EPOLLHUP | unix.EPOLLERR
	p.update(func() {
		in, out := &p.halves[from], &p.halves[1-from]
		if out.blocked() && events&(unix.EPOLLOUT|hangup) != 0 {
			p.flush(1 - from)
		}
		if !p.over && in.reads() && events&(unix.EPOLLIN|hangup) != 0 {
			p.pump(from)
		}
		if s := &p.sides[from]; !p.over && events&hangup != 0 && !in.reads() {
			// Nothing is read that would tell. EPOLLHUP alone is also an orderly
			// end of both directions.
			s.hung = true
			if events&unix.EPOLLERR != 0 && s.stream == nil {
				p.broke(from, errReset)
			}
		}
		p.rearm()
	})
}

var errReset = fmt.Errorf("reset: %w", unix.ECONNRESET)

// rearm ends the pair if it is through, and tells the kernel what is waited for
// now. A side of which nothing is wanted is watched for a hang-up, until that has
// been told: the kernel repeats it for as long as it is asked.
func (p *Pair) rearm() {
	p.conclude()
	if p.over {
		return
	}
	for i := range p.sides {
		s := &p.sides[i]
		var want uint32
		if p.halves[i].reads() {
			want |= unix.EPOLLIN
		}
		if p.halves[1-i].blocked() {
			want |= unix.EPOLLOUT
		}
		watch := want != 0 || !s.hung
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
		if err := p.loop.watch(&p.registration, s.fd, i, op, want); err != nil {
			p.fail(err)
			return
		}
	}
}

// broke notes that a side takes nothing more, so that both will be reset. What it
// has brought still goes to the other.
func (p *Pair) broke(i int, err error) {
	p.halves[1-i].stop()
	switch {
	case p.why == nil:
		p.drain = NewDrain(p.progress())
		p.look = time.AfterFunc(DrainTick, p.checkDrain)
	case !p.vague:
		return
	}
	// That a stream cannot be written to is less than what the peer will say.
	p.vague = p.sides[i].stream != nil && !errors.Is(err, ErrResetByPeer)
	if i == 0 && p.sides[i].stream == nil {
		err = &ClientError{err}
	}
	p.why = err
}

// lost cuts a direction that its source has failed.
func (p *Pair) lost(from int, err error) {
	p.halves[from].phase = phaseCut
	p.broke(from, err)
}

// conclude ends the pair if both directions are final. Before a reset, what has
// been written is to be sent.
func (p *Pair) conclude() {
	if p.over || !p.halves[0].final() || !p.halves[1].final() {
		return
	}
	if p.why != nil && p.unsent() > 0 {
		return // checkDrain comes back
	}
	p.end(p.why)
}

// unsent is what has been written to programs that are not broken, and has not
// been sent.
func (p *Pair) unsent() (n int) {
	for i := range p.sides {
		if s := &p.sides[i]; s.stream == nil && p.halves[1-i].phase != phaseStopped {
			n += unsent(s.fd)
		}
	}
	return n
}

// progress changes when something moves.
func (p *Pair) progress() uint64 {
	return p.writes - uint64(p.unsent())
}

// checkDrain looks whether the reset that is due can go out.
func (p *Pair) checkDrain() {
	p.update(func() {
		if p.drain.Over(p.progress()) {
			p.end(p.why)
		} else if p.conclude(); !p.over {
			p.look.Reset(DrainTick)
		}
	})
}

// fail resets both sides at once.
func (p *Pair) fail(err error) {
	if !p.over {
		p.end(err)
	}
}

// end lets go of everything.
func (p *Pair) end(err error) {
	p.over, p.err = true, err
	if p.look != nil {
		p.look.Stop()
	}
	if p.loop != nil {
		p.loop.remove(&p.registration)
	}
	for i := range p.sides {
		s := &p.sides[i]
		if s.stream != nil && s.watched && s.stream.Reusable() {
			// It may live on, and what befalls it then is not for this pair.
			_ = p.loop.watch(&p.registration, s.fd, i, unix.EPOLL_CTL_DEL, 0)
		}
		s.release(err)
	}
	for i := range p.halves {
		p.halves[i].drop()
	}
}
