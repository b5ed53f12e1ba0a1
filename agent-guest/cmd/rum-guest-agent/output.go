package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

// The rules of output, all of them here.
//
// Standard output carries what was asked for and nothing else: the ports, the
// version, the help; with --stdio it belongs to the tunnel. Everything else,
// logs included, goes to standard error. An error is two lines: what is wrong,
// beginning with the program's name, and what to do about it.

// Exit codes. Being told to stop (SIGTERM, SIGINT) is success.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitAbsent  = 3 // no agent runs that could tell
)

const usageText = `rum-guest-agent makes the ports of this VM reachable on its host.

Usage:
  rum-guest-agent [flags]          serve the host until stopped
  rum-guest-agent ports [--json]   print the ports that listen here
  rum-guest-agent status [--json]  print what became of them on the host
  rum-guest-agent open URL         open a page in the browser of the host's user
  rum-guest-agent profile          print what a login shell may run to show that
  rum-guest-agent version          print the version

Flags:
`

// A problem is an error that knows what to do about it.
type problem struct {
	err    error
	hint   string
	usage  bool
	absent bool
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// advise says what to do about err; a nil err stays nil.
func advise(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &problem{err: err, hint: hint}
}

// misuse reports a command line that cannot be carried out. For a value that a flag's library cannot parse it says what is wanted.
func misuse(err error) error {
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		flag := invalid.GetFlag()
		want := map[string]string{"bool": "true or false", "duration": "a duration, such as 100ms or 1s"}[flag.Value.Type()]
		if flag.Name == "log-level" {
			want = "debug, info, warn or error"
		}
		if want != "" { // a flag of ours says it itself
			err = fmt.Errorf("--%s %q: want %s", flag.Name, invalid.GetValue(), want)
		}
	}
	return &problem{err: err, hint: "run rum-guest-agent --help to see the usage", usage: true}
}

// report prints an error and returns the exit code that goes with it.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "rum-guest-agent: %v\n", err)
	p, ok := errors.AsType[*problem](err)
	if !ok {
		return exitFailure
	}
	fmt.Fprintln(stderr, p.hint)
	switch {
	case p.usage:
		return exitUsage
	case p.absent:
		return exitAbsent
	}
	return exitFailure
}
