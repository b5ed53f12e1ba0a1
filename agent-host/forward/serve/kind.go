package serve

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Kinds are what errors of connections are counted by.
var Kinds = [...]string{
	refused:     "refused",         // nothing listens in the guest
	timedOut:    "timeout",         // the service, or the guest agent, did not answer
	denied:      "denied",          // the guest agent may not connect there
	unreachable: "unreachable",     // the guest agent, or the host over the bridge, could not connect otherwise
	reset:       "reset",           // the service reset the connection
	cut:         status.ErrorCut,   // the link was lost, or bytes of the connection were
	noWay:       status.ErrorNoWay, // nothing reaches the guest
	descriptors: "descriptors",     // this process has no more of them
	other:       "other",
}

const (
	refused = iota
	timedOut
	denied
	unreachable
	reset
	cut
	noWay
	descriptors
	other
)

// kindOf is the index in [Kinds] of an error.
func kindOf(err error) int {
	if answer, ok := errors.AsType[*wire.AnswerError](err); ok {
		switch answer.Status {
		case wire.AnswerRefused:
			return refused
		case wire.AnswerTimedOut:
			return timedOut
		case wire.AnswerDenied:
			return denied
		}
		return unreachable
	}
	if _, short := errors.AsType[*reserve.SpentError](err); short {
		return descriptors
	}
	for _, k := range []struct {
		is   error
		kind int
	}{
		{errRefusedOften, refused}, {unix.ECONNREFUSED, refused},
		{ErrNoWay, noWay}, {errLink, noWay},
		{os.ErrDeadlineExceeded, timedOut}, {context.DeadlineExceeded, timedOut}, {unix.ETIMEDOUT, timedOut},
		{unix.EHOSTUNREACH, unreachable}, {unix.ENETUNREACH, unreachable},
		{relay.ErrResetByPeer, reset}, {unix.ECONNRESET, cut},
	} {
		if errors.Is(err, k.is) {
			return k.kind
		}
	}
	return other
}
