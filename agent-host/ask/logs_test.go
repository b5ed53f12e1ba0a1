package ask_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/control"
)

// agentWithLog answers on a control socket with what a guest sends.
func agentWithLog(t *testing.T, sent string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		s := &control.Server{Log: slog.New(slog.DiscardHandler), GuestLog: func(context.Context, string, uint32, bool) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(sent)), nil
		}}
		_ = s.Serve(ctx, l)
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return socket
}

func TestNoMoreLinesOfALogAreShownThanWereAskedFor(t *testing.T) {
	socket := agentWithLog(t, strings.Repeat("line\n", 5000))
	var out bytes.Buffer
	if err := (&ask.Logs{VM: "dev", Lines: 5}).Run(t.Context(), &out, socket); err != nil || out.String() != strings.Repeat("line\n", 5) {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
}

// TestAGuestsLogIsMadeSafeToPrint is a guest whose log has what a terminal would obey, and a line without end.
func TestAGuestsLogIsMadeSafeToPrint(t *testing.T) {
	socket := agentWithLog(t, "a\x1b]0;title\x07\rb\u202e\xff\n"+strings.Repeat("x", 100<<10)+"\nlast\n")
	var out bytes.Buffer
	if err := (&ask.Logs{VM: "dev", Lines: 10}).Run(t.Context(), &out, socket); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || lines[0] != "a?]0;title??b??" || len(lines[1]) > 1100 || lines[2] != "last" {
		t.Errorf("%d lines: %.60q", len(lines), lines)
	}
}
