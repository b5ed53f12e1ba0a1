package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// answers are how errors are told, in the form of a guest agent's answers: the first that fits.
var answers = []struct {
	status wire.AnswerStatus
	is     error
}{
	{wire.AnswerRefused, syscall.ECONNREFUSED}, {wire.AnswerRefused, syscall.ECONNRESET}, {wire.AnswerRefused, fs.ErrNotExist},
	{wire.AnswerTimedOut, os.ErrDeadlineExceeded}, {wire.AnswerTimedOut, context.DeadlineExceeded}, {wire.AnswerTimedOut, syscall.ETIMEDOUT},
	{wire.AnswerDenied, fs.ErrPermission},
}

// AppendAnswer appends what became of a request; nil is that it went well.
func AppendAnswer(b []byte, err error) []byte {
	if err == nil {
		return wire.AppendAnswer(b, wire.AnswerOK, "")
	}
	status := wire.AnswerUnreachable
	for _, a := range answers {
		if errors.Is(err, a.is) {
			status = a.status
			break
		}
	}
	return wire.AppendAnswer(b, status, err.Error())
}

// RefusedError is what a relay answers that connects to nothing.
type RefusedError struct {
	// Said are the relay's words, safe to show.
	Said   string
	status wire.AnswerStatus
}

func (e *RefusedError) Error() string { return e.Said }

// Is reports an error that this one stands for: [syscall.ECONNREFUSED], [os.ErrDeadlineExceeded], [fs.ErrPermission] or else
// [syscall.EHOSTUNREACH].
func (e *RefusedError) Is(target error) bool {
	switch e.status {
	case wire.AnswerRefused:
		return target == syscall.ECONNREFUSED
	case wire.AnswerTimedOut:
		return target == os.ErrDeadlineExceeded
	case wire.AnswerDenied:
		return target == fs.ErrPermission
	}
	return target == syscall.EHOSTUNREACH
}

// AnswerReader reads one answer, and not beyond. It can be interrupted by a deadline and called again.
type AnswerReader struct{ wire.AnswerReader }

// Read returns a [*RefusedError] for an answer other than that it went well, and else what befell r.
func (a *AnswerReader) Read(r io.Reader) error {
	err := a.AnswerReader.Read(r)
	if refused, ok := errors.AsType[*wire.AnswerError](err); ok {
		said := refused.Reason
		if said == "" {
			said = fmt.Sprintf("%v", refused.Status)
		}
		return &RefusedError{said, refused.Status}
	}
	return err
}
