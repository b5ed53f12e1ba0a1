package output

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Problem is an error that knows what to do about it.
type Problem struct {
	Err   error
	Hint  string // what to do, a line or more
	Usage bool   // the command line cannot be carried out
}

func (p *Problem) Error() string { return p.Err.Error() }
func (p *Problem) Unwrap() error { return p.Err }

// Advise says what to do about err.
func Advise(err error, hint string) error {
	return &Problem{Err: err, Hint: hint}
}

// Say tells of an error, and what to do about it, a line each. hint may be empty.
func Say(w io.Writer, err error, hint string) {
	fmt.Fprintf(w, "rum-host-agent: %s\n", CleanError(err.Error()))
	for line := range strings.Lines(hint) {
		fmt.Fprintln(w, CleanHint(strings.TrimSuffix(line, "\n")))
	}
}

// Hinted is [Advise] where there is an error and a hint.
func Hinted(err error, hint string) error {
	if err == nil || hint == "" {
		return err
	}
	return Advise(err, hint)
}

// Misuse reports a command line that cannot be carried out. A remedy that err knows stays;
// without one there is no hint, and the command's help is one.
func Misuse(err error) error {
	hint := ""
	if p, ok := errors.AsType[*Problem](err); ok {
		hint = p.Hint
	}
	return &Problem{Err: err, Hint: hint, Usage: true}
}

// maxMistakes bounds how many mistakes of a file are shown at once.
const maxMistakes = 20

// Mistakes takes the error of a file with several apart: at least one, and no more than a
// person reads.
func Mistakes(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	all := joined.Unwrap()
	if left := len(all) - maxMistakes; left > 0 {
		all = append(all[:maxMistakes:maxMistakes], fmt.Errorf("and %d more", left))
	}
	return all
}

// maxText bounds what one value can take of a terminal, in characters, maxError an
// error, whose cause comes last, and maxHint a line of advice, whose commands have
// paths in them.
const (
	maxText  = 200
	maxError = 1000
	maxHint  = 8000
)

// Clean makes text safe to print on a terminal: no control characters, no
// invisible ones that reorder or hide text, no endless line.
func Clean(s string) string { return cleanTo(maxText, s) }

// CleanError is clean for what may be a chain of errors.
func CleanError(s string) string { return cleanTo(maxError, s) }

// CleanHint is clean for a line of advice.
func CleanHint(s string) string { return cleanTo(maxHint, s) }

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

// Colours reports whether a file wants colours: a terminal that has them, and
// a user who did not say no (https://no-color.org).
func Colours(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}
