package tunnel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// itself connects to what the agent serves itself.
func (s *Server) itself(t wire.Target) (relay.Conn, error) {
	if s.Itself == nil {
		return nil, fmt.Errorf("%v: %w", t, os.ErrNotExist)
	}
	return s.Itself(t)
}

// answerTo is the answer that a dial makes.
func answerTo(err error) (wire.AnswerStatus, string) {
	switch {
	case err == nil:
		return wire.AnswerOK, ""
	case errors.Is(err, dial.ErrNotLocal), errors.Is(err, handshake.ErrNoOrder):
		return wire.AnswerDenied, err.Error()
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist): // the latter of a unix socket
		return wire.AnswerRefused, err.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return wire.AnswerTimedOut, err.Error()
	case errors.Is(err, os.ErrExist):
		return wire.AnswerUnchanged, err.Error()
	}
	return wire.AnswerUnreachable, err.Error()
}
