package stream

import "net"

// HandOver ends the stream and leaves its connection as it is, which is the caller's from then
// on: the peer is told nothing about it any more, and it outlives the link. It is for a stream
// that has been answered and that nothing relays. It fails if the stream is dead already.
func (s *Stream) HandOver() (net.Conn, error) {
	s.mu.Lock()
	conn, err := s.conn, s.err
	if err == nil {
		s.conn = nil // which Die would close
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s.Die(net.ErrClosed)
	return conn, nil
}
