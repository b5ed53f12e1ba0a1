package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

// The rules of output, all of them here.
//
// Standard output carries what was asked for and nothing else; logs and errors
// go to standard error. An error is two lines: what is wrong, beginning with the
// program's name, and what to do about it.
//
// Text that a guest could have chosen goes through clean before it is printed
// for people; JSON needs no such care, because it escapes. Colour is for
// terminals, and never the only carrier of a meaning.

// Exit codes. Being told to stop (SIGTERM, SIGINT) is success.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitNoAgent = 3
)

// A problem is an error that knows what to do about it.
type problem struct {
	err   error
	hint  string
	usage bool
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// advise says what to do about err.
func advise(err error, hint string) error {
	return &problem{err: err, hint: hint}
}

// misuse reports a command line that cannot be carried out. A remedy that err knows stays.
func misuse(err error) error {
	hint := "run rum-host-agent --help to see the usage"
	if p, ok := errors.AsType[*problem](err); ok {
		hint = p.hint
	}
	return &problem{err: err, hint: hint, usage: true}
}

// report prints an error and returns the exit code that goes with it.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "rum-host-agent: %s\n", cleanError(err.Error()))
	p, ok := errors.AsType[*problem](err)
	if !ok {
		return exitFailure
	}
	for line := range strings.Lines(p.hint) {
		fmt.Fprintln(stderr, cleanTo(maxHint, strings.TrimSuffix(line, "\n")))
	}
	switch {
	case p.usage:
		return exitUsage
	case errors.Is(err, control.ErrNoAgent):
		return exitNoAgent
	}
	return exitFailure
}

// maxText bounds what one value can take of a terminal, in characters, maxError an
// error, whose cause comes last, and maxHint a line of advice, whose commands have
// paths in them.
const (
	maxText  = 200
	maxError = 1000
	maxHint  = 8000
)

// clean makes text safe to print on a terminal: no control characters, no
// invisible ones that reorder or hide text, no endless line.
func clean(s string) string { return cleanTo(maxText, s) }

// cleanError is clean for what may be a chain of errors.
func cleanError(s string) string { return cleanTo(maxError, s) }

func cleanTo(most int, s string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		n++
		switch {
		case n == most:
			return '…'
		case n > most:
			return -1
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

// colours reports whether a file wants colours: a terminal that has them, and
// a user who did not say no (https://no-color.org).
func colours(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}
