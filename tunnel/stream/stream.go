package stream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/latency"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Paths a stream can take; what status shows.
const (
	// PathRaw is a raw connection of its own: over vsock, or over what stands
	// for it (hybrid, unix).
	PathRaw = "vsock"
	// PathMux is a yamux stream beside the control stream.
	PathMux = "mux"
)

// Stream is one forwarded connection as it crosses the VM boundary: a
// [net.Conn] with a half-close and a reset. It is made by a
// link, on the host or in the guest.
//
// Read returns io.EOF only when the peer has told, apart from the stream, how many
// bytes it had sent and all of them arrived. Every other end is an error that
// is [syscall.ECONNRESET]. At the end that opened the stream the first Read waits for
// the answer, which may be a [*wire.AnswerError].
type Stream struct {
	id   uint64
	ends *Ends
	conn net.Conn          // a raw connection or a multiplexed one; nil if it is raw
	raw  *relay.Descriptor // a raw connection until a pair takes over, else nil
	path string
	// again takes back the connection after a clean end, for the next
	// stream; nil if it is closed then.
	again func(Carrier)

	// noHalfClose has no end be written to the connection before it is closed.
	noHalfClose bool

	sent, received atomic.Uint64

	readDeadline deadline

	peerEnded chan struct{} // closed when the peer has told the end of its direction
	aborted   chan struct{} // closed when the peer has told of a reset
	dead      chan struct{} // closed when the stream is reset or closed

	mu          sync.Mutex
	err         error       // why it is dead
	peerSent    uint64      // valid once peerEnded is closed
	peerCut     bool        // a reset follows what the peer sent, not an end; likewise
	told        bool        // the end of our direction has been told
	stopped     bool        // the peer does not read any more
	woken       bool        // a read has been ended, so that the reader sees what the peer has told
	pair        *relay.Pair // is told what peer and link do to the stream
	endTimer    *time.Timer
	gaveUp      *time.Timer // runs once the peer has told of a reset, where there is no pair
	answerTimer *time.Timer // runs until the answer has come
	onDeath     func()      // called once when the stream dies; nil for nobody
	released    bool        // the guest has released the raw connection; belongs to ends
	shut        bool        // a direction of the raw connection has ended, so it is of no further use; belongs to the pair

	answerMu  sync.Mutex  // held while the answer is read
	answered  atomic.Bool // it has been read, or will not come
	answerErr error
	answer    wire.AnswerReader
	asked     time.Duration    // when it was asked for, by package clock
	dials     *latency.Counter // takes in how long a connection took; nil for nobody
}

var _ relay.Conn = (*Stream)(nil)

// multiplexed is a stream of a session: a [*mux.Conn], or what has one within.
type multiplexed interface {
	net.Conn
	CloseWrite() error
	Abort()
	WhenEvicted(func(error))
	RefuseWrites()
	Quiet() bool
	Shrink()
}

var _ multiplexed = (*mux.Conn)(nil)

// New makes a stream to which the peer gives an answer. Nothing carries it yet.
func New(id uint64, e *Ends) *Stream {
	return &Stream{
		id:        id,
		ends:      e,
		peerEnded: make(chan struct{}),
		aborted:   make(chan struct{}),
		dead:      make(chan struct{}),
	}
}

// NewAnswered makes a stream to which this side gives the answer.
func NewAnswered(id uint64, e *Ends) *Stream {
	s := New(id, e)
	s.answered.Store(true)
	return s
}

// ID is the number of the stream, of its link.
func (s *Stream) ID() uint64 { return s.id }

// Reuse has the connection of the stream be given to again after a clean end. It is
// for who makes the stream.
func (s *Stream) Reuse(again func(Carrier)) { s.again = again }

// NoHalfClose has the end of our direction be told and not be written to the connection, which
// would end both. It is for who makes the stream.
func (s *Stream) NoHalfClose() { s.noHalfClose = true }

// Attach gives the stream the connection that carries it. It fails if the
// stream is dead already, and closes conn then.
func (s *Stream) Attach(conn net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		_ = conn.Close()
		return s.err
	}
	s.conn, s.path = conn, PathMux
	if c, ok := conn.(multiplexed); !ok {
		s.path = PathRaw
	} else {
		c.WhenEvicted(s.Fail)
		if s.stopped {
			c.RefuseWrites()
		}
	}
	return nil
}

// AttachRaw gives the stream a raw connection that only a pair will use. It fails
// as Attach does.
func (s *Stream) AttachRaw(raw *relay.Descriptor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		raw.Close()
		return s.err
	}
	s.raw, s.path = raw, PathRaw
	return nil
}

// Path is PathRaw or PathMux.
func (s *Stream) Path() string { return s.path }

// LocalAddr is the near end of the connection that carries the stream.
func (s *Stream) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// RemoteAddr is the far end of the connection that carries the stream.
func (s *Stream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline of Read; zero means none.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.readDeadline.set(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.woken { // which the reader is still to see
		return nil
	}
	return s.conn.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline of Write; zero means none.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	return s.conn.SetWriteDeadline(t)
}

func (s *Stream) Read(b []byte) (int, error) {
	if err := s.prepareRead(); err != nil {
		return 0, err
	}
	for {
		arrived, err := s.Arrived()
		if err != nil {
			s.Die(err)
			return 0, s.Failure()
		}
		if arrived && s.again != nil {
			return 0, io.EOF // the connection stays open
		}
		n, err := s.conn.Read(b)
		switch {
		case n > 0:
			s.received.Add(uint64(n))
			return n, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && s.wasWoken():
			continue
		case err != nil:
			err = s.endOfRead(err)
		}
		return 0, err
	}
}

func (s *Stream) Write(b []byte) (int, error) {
	select {
	case <-s.dead:
		return 0, s.Failure()
	case <-s.aborted:
		return 0, relay.ErrResetByPeer
	default:
	}
	n, err := s.conn.Write(b)
	s.sent.Add(uint64(n))
	if err != nil {
		err = s.translate(err)
	}
	return n, err
}

// CloseWrite ends our direction: the peer is told the byte count and reads EOF.
func (s *Stream) CloseWrite() error {
	if !s.tellEnd() || s.noHalfClose || s.again != nil {
		return nil
	}
	return s.translate(s.conn.(interface{ CloseWrite() error }).CloseWrite())
}

// tellEnd tells the peer that our direction is complete, once.
func (s *Stream) tellEnd() bool {
	s.mu.Lock()
	first := !s.told && s.err == nil
	s.told = s.told || first
	s.mu.Unlock()
	if first {
		s.ends.Tell(wire.EndMessage{ID: s.id, Kind: wire.EndComplete, Sent: s.sent.Load()})
	}
	return first
}

// Close ends the stream: what was written still arrives, what the peer still
// sends is refused.
func (s *Stream) Close() error {
	if s.tellEnd() && !s.noHalfClose && s.again == nil {
		_ = s.conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	select {
	case <-s.peerEnded:
	default:
		s.ends.Tell(wire.EndMessage{ID: s.id, Kind: wire.EndStopped})
	}
	if !s.giveBack() {
		s.Die(net.ErrClosed)
	}
	return nil
}

// Abort resets the stream: the peer's connection is reset too.
func (s *Stream) Abort() {
	s.Fail(fmt.Errorf("stream aborted: %w", net.ErrClosed))
}

// Fail resets the stream because of err.
func (s *Stream) Fail(err error) {
	if s.Die(err) && !s.WasAborted() {
		s.ends.Tell(wire.EndMessage{ID: s.id, Kind: wire.EndAborted, Sent: s.sent.Load()})
	}
}

// WasAborted tells whether the peer has told of a reset.
func (s *Stream) WasAborted() bool {
	select {
	case <-s.aborted:
		return true
	default:
		return false
	}
}

// Die makes the stream dead for good and lets go of everything it holds. It
// reports whether the stream was alive.
func (s *Stream) Die(err error) bool {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = err
		close(s.dead)
	}
	conn, raw, pair, onDeath := s.conn, s.raw, s.pair, s.onDeath
	s.raw = nil
	if s.endTimer != nil {
		s.endTimer.Stop()
	}
	if s.gaveUp != nil {
		s.gaveUp.Stop()
	}
	s.stopAnswerTimer()
	s.mu.Unlock()
	if !first {
		return false
	}
	s.ends.remove(s)
	if onDeath != nil {
		onDeath()
	}
	switch {
	case pair != nil:
		pair.Notify()
	case conn != nil:
		if c, ok := conn.(multiplexed); ok && err != net.ErrClosed { // which is the end in order
			c.Abort()
			break
		}
		_ = conn.Close()
	case raw != nil:
		raw.Close()
	}
	return true
}

// WhenDead has f called when the stream dies, or now if it has. It replaces what
// was to be called before; nil is nothing.
func (s *Stream) WhenDead(f func()) {
	s.mu.Lock()
	dead := s.err != nil
	s.onDeath = f
	s.mu.Unlock()
	if dead && f != nil {
		f()
	}
}

// Failure is why the stream is dead, or nil.
func (s *Stream) Failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// translate prefers why the stream died over how its connection noticed.
func (s *Stream) translate(err error) error {
	if err == nil {
		return nil
	}
	if dead := s.Failure(); dead != nil {
		return dead
	}
	return err
}

// Moved accounts for bytes that went around Read and Write.
func (s *Stream) Moved(read, written int) {
	if read > 0 {
		s.received.Add(uint64(read))
	}
	if written > 0 {
		s.sent.Add(uint64(written))
	}
}

// AwaitReset is of [relay.Conn].
func (s *Stream) AwaitReset() error {
	select {
	case <-s.dead:
	case <-s.aborted:
		return relay.ErrResetByPeer
	}
	if err := s.Failure(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Drain has nothing to wait for: the count of what was sent goes with the reset.
func (s *Stream) Drain() {}
