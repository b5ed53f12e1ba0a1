package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// terminal prints the demo's steps, each with the seconds since the start; in
// bold on a terminal, plain elsewhere or with NO_COLOR set.
type terminal struct {
	file  *os.File
	began time.Time
	bold  bool
}

func newTerminal(file *os.File) *terminal {
	bold := term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == ""
	return &terminal{file: file, began: time.Now(), bold: bold}
}

func (t *terminal) step(format string, args ...any) {
	line := fmt.Sprintf("%5.1f s  ", time.Since(t.began).Seconds()) + fmt.Sprintf(format, args...)
	if t.bold {
		line = "\x1b[1m" + line + "\x1b[0m"
	}
	fmt.Fprintln(t.file, line)
}

// block prints text that a step is about, indented.
func (t *terminal) block(text string) {
	text = strings.TrimRight(text, "\n")
	fmt.Fprintf(t.file, "\n    %s\n\n", strings.ReplaceAll(text, "\n", "\n    "))
}

// Write lets the progress of a download through.
func (t *terminal) Write(p []byte) (int, error) { return t.file.Write(p) }
