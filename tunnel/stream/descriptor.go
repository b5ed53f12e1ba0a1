package stream

import (
	"bytes"
	"errors"
	"io"
	"net"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// This file is what a stream on a raw connection is to a pair. Reading and
// writing, its Read and Write are not used then.

var _ relay.Stream = (*Stream)(nil)

// Detach is of [relay.FD].
func (s *Stream) Detach(p *relay.Pair) (raw *relay.Descriptor, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if raw = s.raw; raw == nil {
		if raw, err = relay.NewDescriptor(s.conn); err != nil {
			return nil, err
		}
	}
	s.raw, s.pair = nil, p
	return raw, nil
}

// Open takes the guest's answer off what was read.
func (s *Stream) Open(b []byte, readErr error) ([]byte, error) {
	s.answerMu.Lock()
	defer s.answerMu.Unlock()
	if s.answered.Load() {
		return b, s.answerErr
	}
	r := bytes.NewReader(b)
	err := s.answer.Read(r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if readErr == nil {
			return nil, relay.ErrIncomplete
		}
		err = readErr
	}
	return b[len(b)-r.Len():], s.gotAnswer(err)
}

// SourceEnded is of [relay.Stream].
func (s *Stream) SourceEnded() { s.shut = true }

// Reusable is of [relay.Stream].
func (s *Stream) Reusable() bool { return s.again != nil }

// OnDescriptor is of [relay.Stream].
func (s *Stream) OnDescriptor() bool { return s.path != PathMux }

// Progress is of [relay.Stream]: what has come and gone, in bytes.
func (s *Stream) Progress() uint64 { return s.sent.Load() + s.received.Load() }

// ProveEnd is of [relay.FD]: only what the peer has told counts.
func (s *Stream) ProveEnd(error) error {
	select {
	case <-s.peerEnded:
		return s.complete()
	default:
	}
	s.expectEnd()
	return relay.ErrEndUnknown
}

// EndWrite is of [relay.FD]. A raw connection that is to be used again stays open.
func (s *Stream) EndWrite(bool) (shut bool) {
	return s.tellEnd() && s.again == nil && !s.noHalfClose
}

// Release is of [relay.FD].
func (s *Stream) Release(raw *relay.Descriptor, err error) {
	s.mu.Lock()
	s.pair = nil // it is what calls
	s.mu.Unlock()
	if err == nil && s.again != nil && !s.shut {
		s.again(Carrier{raw: raw})
		raw = nil
	}
	_, refused := errors.AsType[*wire.AnswerError](err)
	switch {
	case err == nil:
		s.Die(net.ErrClosed)
	case refused, s.WasAborted():
		s.Die(err) // the peer knows
	default:
		s.Fail(err)
	}
	if raw != nil {
		raw.Close()
	}
}
