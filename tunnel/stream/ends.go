package stream

import (
	"fmt"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Ends knows the streams of a link, and carries what both sides tell each
// other about how they end.
type Ends struct {
	// Tell sends a message to the peer; it does not block.
	Tell func(wire.EndMessage)
	// Heard is when the control stream last brought anything, by package clock.
	Heard func() time.Duration
	// KeepEarly tells for which IDs messages about streams that are not known
	// yet are kept: those of the other end. What opens a stream comes on another
	// connection and may come later than how it ended.
	KeepEarly func(id uint64) bool
	// Began is told of each new stream; nil in the guest.
	Began func()
	// Reuse takes in a connection that the guest has released; nil in the
	// guest.
	Reuse func(Carrier)

	mu       sync.Mutex
	streams  map[uint64]*Stream
	pending  map[uint64]pendingRelease // connections of streams that are over, until the guest releases them
	expiring bool                      // a timer runs for those
	err      error                     // set once the link has ended
	early    map[uint64][]wire.EndMessage
	order    []uint64 // of the keys of early, oldest first
}

// maxEarly bounds how many streams the messages of which are kept. Those of
// streams that are gone are among them, so the oldest make room.
const maxEarly = 1024

// Add takes in a new stream. It fails once the link has ended.
func (e *Ends) Add(s *Stream) error {
	early, err := e.put(s)
	if err == nil && e.Began != nil {
		e.Began()
	}
	for _, m := range early {
		s.peerSaid(m)
	}
	return err
}

func (e *Ends) put(s *Stream) ([]wire.EndMessage, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return nil, e.err
	}
	if _, taken := e.streams[s.id]; taken {
		return nil, fmt.Errorf("stream %d is open already", s.id)
	}
	if e.streams == nil {
		e.streams = make(map[uint64]*Stream)
	}
	e.streams[s.id] = s
	early := e.early[s.id]
	delete(e.early, s.id)
	return early, nil
}

// Count is how many streams there are.
func (e *Ends) Count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.streams)
}

func (e *Ends) remove(s *Stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.streams[s.id] == s {
		delete(e.streams, s.id)
	}
}

// Deliver hands a message from the peer to its stream, and reports whether there is
// one. One for a stream that is gone already is of no interest.
func (e *Ends) Deliver(m wire.EndMessage) bool {
	if m.Kind == wire.EndReleased {
		return e.release(m.ID)
	}
	e.mu.Lock()
	s := e.streams[m.ID]
	if s == nil && e.KeepEarly(m.ID) {
		e.keep(m)
	}
	e.mu.Unlock()
	return s != nil && s.peerSaid(m)
}

const (
	// maxPending bounds how many connections wait for their release. The
	// oldest makes room.
	maxPending = 256
	// releaseWithin is how long one waits. The guest releases it at once, or never:
	// where the stream did not end well for it.
	releaseWithin = 10 * time.Second
)

type pendingRelease struct {
	conn  Carrier
	since time.Time
}

// AwaitRelease is given the connection of a stream that has come to a clean end: it can be
// used again once the guest has released it.
func (e *Ends) AwaitRelease(s *Stream, conn Carrier) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.streams, s.id)
	switch {
	case e.err != nil:
		conn.Close()
	case s.released:
		e.Reuse(conn)
	default:
		if len(e.pending) >= maxPending {
			e.dropOldest()
		}
		if e.pending == nil {
			e.pending = make(map[uint64]pendingRelease)
		}
		e.pending[s.id] = pendingRelease{conn, time.Now()}
		if !e.expiring {
			e.expiring = true
			time.AfterFunc(releaseWithin, e.expire)
		}
	}
}

// dropOldest needs e.mu.
func (e *Ends) dropOldest() {
	var oldest uint64
	for id, r := range e.pending {
		if o, ok := e.pending[oldest]; !ok || r.since.Before(o.since) {
			oldest = id
		}
	}
	e.pending[oldest].conn.Close()
	delete(e.pending, oldest)
}

// expire closes connections that have waited for too long. To a guest that
// releases one after all it is one that was not needed.
func (e *Ends) expire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, r := range e.pending {
		if time.Since(r.since) >= releaseWithin {
			r.conn.Close()
			delete(e.pending, id)
		}
	}
	if e.expiring = len(e.pending) > 0; e.expiring {
		time.AfterFunc(releaseWithin/2, e.expire)
	}
}

// release is called when the guest has released a connection, which may be
// before all of its bytes have been read here.
func (e *Ends) release(id uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Reuse == nil {
		return false // not for a guest to be told
	}
	if s := e.streams[id]; s != nil {
		first := !s.released
		s.released = true
		return first
	}
	r, ok := e.pending[id]
	if ok {
		delete(e.pending, id)
		e.Reuse(r.conn)
	}
	return ok
}

// keep needs e.mu.
func (e *Ends) keep(m wire.EndMessage) {
	if e.early == nil {
		e.early = make(map[uint64][]wire.EndMessage)
	}
	said, known := e.early[m.ID]
	if len(said) == int(wire.EndStopped) {
		return // one of each kind is all there can be
	}
	e.early[m.ID] = append(said, m)
	if known {
		return
	}
	e.order = append(e.order, m.ID)
	if len(e.order) > maxEarly {
		delete(e.early, e.order[0])
		e.order = append(e.order[:0], e.order[1:]...)
	}
}

// FailAll ends every stream with err, and every later one too.
func (e *Ends) FailAll(err error) {
	e.mu.Lock()
	e.err = err
	streams := e.streams
	e.streams = nil
	for _, r := range e.pending {
		r.conn.Close()
	}
	e.pending = nil
	e.mu.Unlock()
	for _, s := range streams {
		s.Die(err)
	}
}
