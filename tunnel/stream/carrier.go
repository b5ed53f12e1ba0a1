package stream

import (
	"net"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/relay/sockio"
)

// Carrier is a connection to a guest agent that carries one stream after another: a descriptor, or a stream of a session with
// another host. Its zero value is none.
type Carrier struct {
	raw    *relay.Descriptor
	shared multiplexed // nil where there is a descriptor
}

// NewCarrier takes over a connection. If it fails, the connection is left as it was.
func NewCarrier(c net.Conn) (Carrier, error) {
	if shared, ok := c.(multiplexed); ok {
		return Carrier{shared: shared}, nil
	}
	raw, err := relay.NewDescriptor(c)
	return Carrier{raw: raw}, err
}

// Descriptor is that of the connection, nil where it is a stream of a session.
func (c Carrier) Descriptor() *relay.Descriptor { return c.raw }

// Conn is the connection, for a stream that is not relayed by its descriptor.
func (c Carrier) Conn() net.Conn {
	if c.raw != nil {
		return c.raw.Conn()
	}
	return c.shared
}

// Stale reports whether the other end has sent something, or has ended the connection, while it carried no stream. Of a
// descriptor the first write tells.
func (c Carrier) Stale() bool { return c.raw == nil && !c.shared.Quiet() }

// Close closes the connection without waiting, as telling the other end of a session's stream may have to.
func (c Carrier) Close() {
	if c.raw != nil {
		c.raw.Close()
		return
	}
	go c.shared.Abort()
}

// giveBack gives the connection of a stream on a session to who wants it again, and reports whether that could be: where both
// directions have come to a clean end.
func (s *Stream) giveBack() bool {
	shared, ok := s.conn.(multiplexed)
	if !ok || s.again == nil {
		return false
	}
	if arrived, err := s.Arrived(); !arrived || err != nil || s.answerErr != nil {
		return false
	}
	s.mu.Lock()
	if s.err != nil || s.stopped || s.peerCut {
		s.mu.Unlock()
		return false
	}
	s.err = net.ErrClosed // from here on nobody touches the connection for this stream
	close(s.dead)
	s.stopAnswerTimer()
	if s.endTimer != nil {
		s.endTimer.Stop()
	}
	onDeath := s.onDeath
	s.mu.Unlock()
	_ = shared.SetDeadline(time.Time{})
	shared.Shrink()
	s.again(Carrier{shared: shared})
	if onDeath != nil {
		onDeath()
	}
	return true
}

// wake has a reader look at what the peer has told, where the connection itself does not end. It needs s.mu, with which
// the reader takes it back: never on a connection that has gone on to another stream.
func (s *Stream) wake() {
	if shared, ok := s.conn.(multiplexed); ok && s.again != nil && s.err == nil {
		s.woken = true
		_ = shared.SetReadDeadline(time.Unix(1, 0))
	}
}

// wasWoken takes a wake-up back, and reports whether there was one.
func (s *Stream) wasWoken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.woken
	if s.woken = false; was && s.err == nil {
		_ = s.conn.SetReadDeadline(s.readDeadline.at())
	}
	return was
}

// Quiet reports whether the peer has sent nothing that was not read yet, and has neither ended nor reset the stream.
// It does not wait, and is for a stream whose answer was read.
func (s *Stream) Quiet() bool {
	select {
	case <-s.peerEnded: // by a reset too
		return false
	case <-s.dead:
		return false
	default:
	}
	switch c := s.conn.(type) {
	case multiplexed:
		return c.Quiet()
	case sockio.Socket:
		return sockio.New(c).Quiet()
	}
	return false
}
