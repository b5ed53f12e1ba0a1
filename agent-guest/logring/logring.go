// Package logring keeps the last lines of a log in memory, for who reads them from afar.
package logring

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
)

const (
	// MaxLines and MaxBytes bound what is kept, and maxLine a line of it, in bytes.
	MaxLines = 1000
	MaxBytes = 256 << 10
	maxLine  = 4 << 10
)

// Ring has the last lines that were written to it. The zero value is ready.
type Ring struct {
	mu      sync.Mutex
	lines   []string // the oldest first
	bytes   int      // of lines
	written uint64   // lines, ever
	changed chan struct{}
}

// Write takes whole lines. It never waits and never fails.
func (r *Ring) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range bytes.Lines(b) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		r.add(string(line[:min(len(line), maxLine-1)]) + "\n")
	}
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
	return len(b), nil
}

// add needs r.mu.
func (r *Ring) add(line string) {
	r.lines = append(r.lines, line)
	r.bytes += len(line)
	r.written++
	for len(r.lines) > MaxLines || r.bytes > MaxBytes {
		r.bytes -= len(r.lines[0])
		r.lines[0] = "" // the array stays for a while
		r.lines = r.lines[1:]
	}
}

// after returns what is kept of the lines behind the first n that were ever written, how many of them are not, how many
// were written by now, and a channel that is closed when there are more.
func (r *Ring) after(n uint64) (lines []string, lost, written uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.written - uint64(len(r.lines))
	if n < oldest {
		lost, n = oldest-n, oldest
	}
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return append(lines, r.lines[n-oldest:]...), lost, r.written, r.changed
}

// Copy writes the last lines to w, at most so many, and with follow also what comes later until gone is closed. Where w
// does not take lines in time, it says how many it has missed.
func (r *Ring) Copy(w io.Writer, last int, follow bool, gone <-chan struct{}) error {
	lines, _, written, more := r.after(0)
	lines = lines[max(0, len(lines)-last):]
	for {
		if len(lines) > 0 {
			if _, err := io.WriteString(w, strings.Join(lines, "")); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-gone:
			return nil
		case <-more:
		}
		var lost uint64
		lines, lost, written, more = r.after(written)
		if lost > 0 {
			if _, err := fmt.Fprintf(w, "%d lines of the log are missing: they were not taken in time\n", lost); err != nil {
				return err
			}
		}
	}
}
