package tunnel

import (
	"fmt"
	"sync"
	"time"
)

// endKind is what one side tells about a stream.
type endKind uint8

// Values are on the wire.
const (
	// endComplete: everything was sent, Sent bytes of it; nothing follows.
	endComplete endKind = 1
	// endAborted: the connection behind the stream was reset.
	endAborted endKind = 2
	// endStopped: nothing more will be read.
	endStopped endKind = 3
)

// endMessage tells on the control stream how a stream ended.
type endMessage struct {
	ID   uint64
	Kind endKind
	Sent uint64 // bytes, for endComplete
}

// ends knows the streams of a link, and carries what both sides tell each
// other about how they end.
type ends struct {
	// tell sends a message to the peer; it does not block.
	tell func(endMessage)
	// heard is when the control stream last brought anything.
	heard func() time.Time

	mu      sync.Mutex
	streams map[uint64]*Stream
	err     error // set once the link has ended
}

func (e *ends) add(s *Stream) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	if _, taken := e.streams[s.id]; taken {
		return fmt.Errorf("stream %d is open already", s.id)
	}
	if e.streams == nil {
		e.streams = make(map[uint64]*Stream)
	}
	e.streams[s.id] = s
	return nil
}

func (e *ends) remove(s *Stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.streams[s.id] == s {
		delete(e.streams, s.id)
	}
}

// count is how many streams are open.
func (e *ends) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.streams)
}

// deliver hands a message from the peer to its stream. One for a stream that is
// gone already is of no interest.
func (e *ends) deliver(m endMessage) {
	e.mu.Lock()
	s := e.streams[m.ID]
	e.mu.Unlock()
	if s != nil {
		s.peerSaid(m)
	}
}

// failAll ends every stream with err, and every later one too.
func (e *ends) failAll(err error) {
	e.mu.Lock()
	e.err = err
	streams := e.streams
	e.streams = nil
	e.mu.Unlock()
	for _, s := range streams {
		s.die(err)
	}
}
