package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

// Paths a stream can take; what status shows.
const (
	// PathRaw is a raw connection of its own: over vsock, or over what stands
	// for it (hybrid, unix).
	PathRaw = "vsock"
	// PathMux is a yamux stream beside the control stream.
	PathMux = "mux"
)

// DialTimeout bounds the dial of a service. One answers at once unless its backlog
// is full or a firewall drops the packets; then it is as long as the kernel tries
// (127 s with 6 retries, net.ipv4.tcp_syn_retries), and as the client waits.
const DialTimeout = 130 * time.Second

// answerTimeout bounds how long the host waits for the guest's answer. It is
// longer than the guest's own limit for the dial, so that normally the guest's
// reason arrives.
const answerTimeout = DialTimeout + 5*time.Second

// Stream is one forwarded connection as it crosses the VM boundary: a
// [net.Conn] with a half-close and a reset. It is made by [Link.Open] on the
// host and by [Server] in the guest.
//
// Read returns io.EOF only when the peer said on the control stream how many
// bytes it had sent and all of them arrived. Every other end is an error that
// is [syscall.ECONNRESET]. On the host the first Read waits for the guest's
// answer, which may be an [*AnswerError].
type Stream struct {
	id   uint64
	ends *ends
	conn net.Conn // a raw connection or a *mux.Conn; nil if it is fd
	fd   int      // a raw connection until a pair takes over, else -1
	path string
	// again takes back the raw connection after a clean end, for the next
	// stream; nil if it is closed then.
	again func(fd int)

	sent, received atomic.Uint64

	readDeadline deadline

	peerEnded chan struct{} // closed when the peer has told the end of its direction
	aborted   chan struct{} // closed when the peer has told of a reset
	dead      chan struct{} // closed when the stream is reset or closed

	mu       sync.Mutex
	err      error       // why it is dead
	peerSent uint64      // valid once peerEnded is closed
	peerCut  bool        // a reset follows what the peer sent, not an end; likewise
	told     bool        // the end of our direction has been told
	stopped  bool        // the peer does not read any more
	pair     *relay.Pair // is told what peer and link do to the stream
	endTimer *time.Timer
	gaveUp   *time.Timer // runs once the peer has told of a reset, where there is no pair
	onDeath  func()      // called once when the stream dies; nil for nobody
	released bool        // the guest has released the raw connection; belongs to ends
	shut     bool        // a direction of the raw connection has ended, so it is of no further use; belongs to the pair

	answerMu    sync.Mutex // held while the answer is read
	answered    bool
	answerErr   error
	answer      wire.AnswerReader
	answerTimer *time.Timer
}

var _ relay.Conn = (*Stream)(nil)

// newStream makes a stream to which the peer gives an answer. Nothing carries it yet.
func newStream(id uint64, e *ends) *Stream {
	return &Stream{
		id:        id,
		ends:      e,
		fd:        -1,
		peerEnded: make(chan struct{}),
		aborted:   make(chan struct{}),
		dead:      make(chan struct{}),
	}
}

// newAnswered makes a stream to which this side gives the answer.
func newAnswered(id uint64, e *ends) *Stream {
	s := newStream(id, e)
	s.answered = true
	return s
}

// number is the ID of the stream.
func (s *Stream) number() uint64 { return s.id }

// reuse has the raw connection of the stream be given to again after a clean end. It is
// for who makes the stream.
func (s *Stream) reuse(again func(fd int)) { s.again = again }

// attach gives the stream the connection that carries it. It fails if the
// stream is dead already, and closes conn then.
func (s *Stream) attach(conn net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		_ = conn.Close()
		return s.err
	}
	s.conn, s.path = conn, PathMux
	if c, ok := conn.(*mux.Conn); !ok {
		s.path = PathRaw
	} else {
		c.WhenEvicted(s.abort)
		if s.stopped {
			c.RefuseWrites()
		}
	}
	return nil
}

// attachFD gives the stream a raw connection that only a pair will use. It fails
// as attach does.
func (s *Stream) attachFD(fd int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		_ = unix.Close(fd)
		return s.err
	}
	s.fd, s.path = fd, PathRaw
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
	if _, err := s.Arrived(); err != nil {
		s.die(err)
		return 0, s.Failure()
	}
	n, err := s.conn.Read(b)
	if n > 0 {
		s.received.Add(uint64(n))
		return n, nil
	}
	if err != nil {
		err = s.endOfRead(err)
	}
	return 0, err
}

// Answer waits for the guest's answer, as the first Read does, and takes nothing of what
// follows it. An error is that of Read. The stream is aborted when ctx ends.
func (s *Stream) Answer(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.Abort)
	defer stop()
	return s.prepareRead()
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

// CloseWrite ends our direction: the peer is told the byte count on the control
// stream and reads EOF.
func (s *Stream) CloseWrite() error {
	if !s.tellEnd() {
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
		s.ends.tell(wire.EndMessage{ID: s.id, Kind: wire.EndComplete, Sent: s.sent.Load()})
	}
	return first
}

// Close ends the stream: what was written still arrives, what the peer still
// sends is refused.
func (s *Stream) Close() error {
	if s.tellEnd() {
		_ = s.conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	select {
	case <-s.peerEnded:
	default:
		s.ends.tell(wire.EndMessage{ID: s.id, Kind: wire.EndStopped})
	}
	s.die(net.ErrClosed)
	return nil
}

// Abort resets the stream: the peer's connection is reset too.
func (s *Stream) Abort() {
	s.abort(fmt.Errorf("stream aborted: %w", net.ErrClosed))
}

func (s *Stream) abort(err error) {
	if s.die(err) && !s.WasAborted() {
		s.ends.tell(wire.EndMessage{ID: s.id, Kind: wire.EndAborted, Sent: s.sent.Load()})
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

// die makes the stream dead for good and lets go of everything it holds. It
// reports whether the stream was alive.
func (s *Stream) die(err error) bool {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = err
		close(s.dead)
	}
	conn, fd, pair, onDeath := s.conn, s.fd, s.pair, s.onDeath
	s.fd = -1
	if s.endTimer != nil {
		s.endTimer.Stop()
	}
	if s.gaveUp != nil {
		s.gaveUp.Stop()
	}
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
		pair.News()
	case conn != nil:
		_ = conn.Close()
	case fd >= 0:
		_ = unix.Close(fd)
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

// peerSaid takes in what the control stream says about this stream. It reports
// whether that was not said before.
func (s *Stream) peerSaid(m wire.EndMessage) (first bool) {
	switch m.Kind {
	case wire.EndComplete:
		s.mu.Lock()
		select {
		case <-s.peerEnded:
		default:
			first = true
			s.peerSent = m.Sent
			close(s.peerEnded)
		}
		pair := s.pair
		s.mu.Unlock()
		if pair != nil && first {
			pair.News()
		}
	case wire.EndStopped:
		s.mu.Lock()
		first = !s.stopped
		s.stopped = true
		conn := s.conn
		s.mu.Unlock()
		if c, ok := conn.(*mux.Conn); ok {
			c.RefuseWrites() // a raw connection refuses by itself
		}
	case wire.EndAborted:
		first = s.peerAborted(m.Sent)
	}
	return first
}

// peerAborted takes in that the peer's connection was reset. What it had sent
// before is still to be read; nothing that is written has anybody to go to. It
// reports false if that was known.
func (s *Stream) peerAborted(sent uint64) bool {
	s.mu.Lock()
	if s.err != nil || s.WasAborted() {
		s.mu.Unlock()
		return false
	}
	select {
	case <-s.peerEnded:
	default:
		s.peerSent, s.peerCut = sent, true
		close(s.peerEnded)
	}
	close(s.aborted)
	s.stopped = true
	conn, pair := s.conn, s.pair
	if pair == nil {
		s.gaveUp = s.giveUp(relay.NewDrain(s.received.Load()))
	}
	s.mu.Unlock()
	if c, ok := conn.(*mux.Conn); ok {
		c.RefuseWrites()
	}
	if pair != nil {
		pair.News()
	}
	return true
}

// giveUp ends the stream when a reset is due and nothing is read any more.
func (s *Stream) giveUp(d relay.Drain) *time.Timer {
	return time.AfterFunc(relay.DrainTick, func() {
		s.mu.Lock()
		over := s.pair != nil || s.err != nil // a pair sees to it
		wait := !over && !d.Over(s.received.Load())
		if wait {
			s.gaveUp = s.giveUp(d)
		}
		s.mu.Unlock()
		if !over && !wait {
			s.die(relay.ErrResetByPeer)
		}
	})
}

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

// endOfRead decides what the end of the connection means. Only the control
// stream can say that it is a clean EOF.
func (s *Stream) endOfRead(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if waitErr := s.awaitEnd(); waitErr != nil {
		return waitErr
	}
	if cut := s.complete(); cut != nil {
		s.die(cut)
		return s.Failure()
	}
	return io.EOF
}

// complete compares what arrived with what the peer told that it had sent.
func (s *Stream) complete() error {
	switch got := s.received.Load(); {
	case s.peerCut:
		return relay.ErrResetByPeer
	case got != s.peerSent:
		return fmt.Errorf("stream cut: %d of %d bytes arrived: %w", got, s.peerSent, syscall.ECONNRESET)
	}
	return nil
}

// Arrived tells whether everything has come that the peer told it had sent.
func (s *Stream) Arrived() (bool, error) {
	select {
	case <-s.peerEnded:
	default:
		return false, nil
	}
	got := s.received.Load()
	if got > s.peerSent || got == s.peerSent && s.peerCut {
		return false, s.complete()
	}
	return got == s.peerSent, nil
}

// awaitEnd waits until the peer has told the end of its direction.
func (s *Stream) awaitEnd() error {
	select {
	case <-s.peerEnded:
		return nil
	default:
	}
	s.expectEnd()
	select {
	case <-s.peerEnded:
		return nil
	case <-s.dead:
		return s.Failure()
	case <-s.readDeadline.wait():
		return os.ErrDeadlineExceeded
	}
}

// expectEnd begins to watch for the end that the peer should have told. What it
// told before it closed the connection is under way on the control stream. If
// that stream is heard for endTimeout without it, it was never told.
func (s *Stream) expectEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endTimer == nil {
		s.watchEnd(clock.Now())
	}
}

// watchEnd needs s.mu.
func (s *Stream) watchEnd(since time.Duration) {
	s.endTimer = time.AfterFunc(endTimeout, func() {
		select {
		case <-s.peerEnded:
			return
		case <-s.dead:
			return
		default:
		}
		if s.ends.heard()-since > endTimeout/2 {
			s.die(errNotTold)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchEnd(since)
	})
}

const endTimeout = 10 * time.Second

var errNotTold = fmt.Errorf("stream ended without its end being told: %w", syscall.ECONNRESET)

func (s *Stream) Moved(read, written int) {
	if read > 0 {
		s.received.Add(uint64(read))
	}
	if written > 0 {
		s.sent.Add(uint64(written))
	}
}

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

// prepareRead takes the guest's answer off the stream; in the guest there is
// none. A deadline that expires meanwhile loses nothing of it.
func (s *Stream) prepareRead() error {
	s.answerMu.Lock()
	defer s.answerMu.Unlock()
	if s.answered {
		return s.answerErr
	}
	err := s.answer.Read(s.conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if err = s.gotAnswer(err); err != nil {
		s.die(err)
	}
	return err
}

// gotAnswer notes the answer, or why none came.
func (s *Stream) gotAnswer(err error) error {
	s.answerTimer.Stop()
	s.answerTimer = nil
	var refused *wire.AnswerError
	if err != nil && !errors.As(err, &refused) {
		err = fmt.Errorf("no answer from the guest: %w", s.translate(err))
	}
	s.answered, s.answerErr = true, err
	return err
}

// expectAnswer starts the time the guest has to answer.
func (s *Stream) expectAnswer() {
	s.answerTimer = time.AfterFunc(answerTimeout, func() {
		s.abort(fmt.Errorf("no answer from the guest within %v: %w", answerTimeout, os.ErrDeadlineExceeded))
	})
}
