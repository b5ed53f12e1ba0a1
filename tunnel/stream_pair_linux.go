package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"

	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

// This file is what a stream on a raw connection is to a pair. Reading and
// writing, its Read and Write are not used then.

var _ toldFD = (*Stream)(nil)

func (s *Stream) detach(p *pair) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return -1, s.err
	}
	if s.fd >= 0 {
		fd := s.fd
		s.fd, s.pair = -1, p
		return fd, nil
	}
	fd, err := takeDescriptor(s.conn)
	if err == nil {
		s.pair = p
	}
	return fd, err
}

// open takes the guest's answer off what was read.
func (s *Stream) open(b []byte, readErr error) ([]byte, error) {
	s.answerMu.Lock()
	defer s.answerMu.Unlock()
	if s.answered {
		return b, s.answerErr
	}
	r := bytes.NewReader(b)
	err := s.answer.Read(r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if readErr == nil {
			return nil, unix.EAGAIN
		}
		err = readErr
	}
	return b[len(b)-r.Len():], s.gotAnswer(err)
}

func (s *Stream) sourceEnded()       { s.shut = true }
func (s *Stream) reusable() bool     { return s.again != nil }
func (s *Stream) onDescriptor() bool { return s.path != PathMux }
func (s *Stream) progress() uint64   { return s.sent.Load() + s.received.Load() }

func (s *Stream) judgeEnd(error) error {
	select {
	case <-s.peerEnded:
		return s.complete()
	default:
	}
	s.expectEnd()
	return errEndUnknown
}

func (s *Stream) endWrite(fd int, _ bool) error {
	if s.tellEnd() && s.again == nil {
		_ = unix.Shutdown(fd, unix.SHUT_WR) // fails only if the peer has gone, which the control stream tells
	}
	return nil
}

func (s *Stream) release(fd int, err error) {
	s.mu.Lock()
	s.pair = nil // it is what calls
	s.mu.Unlock()
	if err == nil && s.again != nil && !s.shut {
		s.again(fd)
		fd = -1
	}
	_, refused := errors.AsType[*wire.AnswerError](err)
	switch {
	case err == nil:
		s.die(net.ErrClosed)
	case refused, s.wasAborted():
		s.die(err) // the peer knows
	default:
		s.abort(err)
	}
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
