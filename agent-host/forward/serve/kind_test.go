package serve_test

import (
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestErrorsAreCountedByWhatWentWrong(t *testing.T) {
	answer := func(s wire.AnswerStatus) error { return fmt.Errorf("stream: %w", &wire.AnswerError{Status: s}) }
	seen := make(map[string]bool)
	for _, tt := range []struct {
		kind string
		err  error
	}{
		{"refused", answer(wire.AnswerRefused)},
		{"refused", fmt.Errorf("bridge: %w", unix.ECONNREFUSED)},
		{"timeout", answer(wire.AnswerTimedOut)},
		{"timeout", fmt.Errorf("no answer: %w", os.ErrDeadlineExceeded)},
		{"denied", answer(wire.AnswerDenied)},
		{"unreachable", answer(wire.AnswerUnreachable)},
		{"unreachable", unix.EHOSTUNREACH},
		{"reset", fmt.Errorf("read: %w", relay.ErrResetByPeer)}, // which is an ECONNRESET as well
		{"cut", fmt.Errorf("link lost: %w", unix.ECONNRESET)},
		{"no_way", serve.ErrNoWay},
		{"descriptors", fmt.Errorf("accept: %w", &reserve.SpentError{})},
		{"other", io.ErrUnexpectedEOF},
	} {
		var e serve.LastError
		e.Note(tt.err)
		counts := e.Counts()
		if i := slices.Index(serve.Kinds[:], tt.kind); i < 0 || counts[i] != 1 {
			t.Errorf("%v: %v of %v, want %s", tt.err, counts, serve.Kinds, tt.kind)
		}
		seen[tt.kind] = true
	}
	for _, kind := range serve.Kinds {
		if !seen[kind] {
			t.Errorf("nothing is counted as %s", kind)
		}
	}
}
