package stream

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// peerSaid takes in what the peer tells about this stream. It reports
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
			s.wake()
			close(s.peerEnded)
		}
		pair := s.pair
		s.mu.Unlock()
		if pair != nil && first {
			pair.Notify()
		}
	case wire.EndStopped:
		s.mu.Lock()
		first = !s.stopped && s.err == nil
		s.stopped = true
		conn := s.conn
		s.mu.Unlock()
		if !first {
			break
		}
		if c, ok := conn.(multiplexed); ok {
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
	if c, ok := conn.(multiplexed); ok {
		c.RefuseWrites()
	}
	if pair != nil {
		pair.Notify()
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
			s.Die(relay.ErrResetByPeer)
		}
	})
}

// endOfRead decides what the end of the connection means. Only what the peer tells
// can make it a clean EOF.
func (s *Stream) endOfRead(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if waitErr := s.awaitEnd(); waitErr != nil {
		return waitErr
	}
	if cut := s.complete(); cut != nil {
		s.Die(cut)
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

// Arrived tells whether everything has come that the peer told it had sent. The answer
// comes before that on the stream's connection, and after what is told on another: until it
// has been read, the next stream on this connection would find it there.
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
	return got == s.peerSent && s.answered.Load(), nil
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

const endTimeout = 10 * time.Second

var errNotTold = fmt.Errorf("stream ended without its end being told: %w", syscall.ECONNRESET)

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
		if s.ends.Heard()-since > endTimeout/2 {
			s.Die(errNotTold)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchEnd(since)
	})
}
