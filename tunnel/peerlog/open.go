package peerlog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/journal"
)

// Open returns an agent's log of lines from a level on: entries of systemd's journal, with attributes as fields, where
// stderr is this program's and the journal has it, and else lines of text to stderr. Who causes a line is in the attribute
// of that key. The others are given each line too, and do not make anybody wait. What is returned beside it is to be closed, for the last lines.
func Open(stderr io.Writer, level slog.Level, key string, others ...slog.Handler) (*slog.Logger, *Writer) {
	w := stderr
	format := func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}) }
	if stderr == io.Writer(os.Stderr) {
		// Where it cannot be reached, lines of text are read by it all the same.
		if socket, err := journal.Dial(); err == nil && socket != nil {
			w = socket
			format = func(w io.Writer) slog.Handler { return journal.NewHandler(w, level) }
		}
	}
	out := newWriter(w, sayLost(format(w)))
	return slog.New(NewHandler(slog.NewMultiHandler(append(others, format(out))...), key)), out
}

// sayLost returns what logs a number of lines that were dropped.
func sayLost(to slog.Handler) func(lines int) {
	return func(lines int) {
		text := fmt.Sprintf("%d lines of the log were lost: they were not taken in time", lines)
		_ = to.Handle(context.Background(), slog.NewRecord(time.Now(), slog.LevelWarn, text, 0))
	}
}
