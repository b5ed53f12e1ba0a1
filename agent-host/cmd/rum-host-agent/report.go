package main

import (
	"errors"
	"io"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/remote/there"
)

// Exit codes. Being told to stop (SIGTERM, SIGINT) is success.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitNoAgent = 3
)

// report prints an error of a command and returns the exit code that goes with it.
func report(stderr io.Writer, name string, err error) int {
	if err == nil {
		return exitOK
	}
	if exit, ok := errors.AsType[*there.ExitError](err); ok {
		return exit.Status
	}
	p, ok := errors.AsType[*output.Problem](err)
	if !ok {
		output.Say(stderr, err, "")
		return exitFailure
	}
	hint := p.Hint
	if p.Usage && hint == "" {
		hint = "run " + name + " --help to see the usage"
	}
	output.Say(stderr, err, hint)
	switch {
	case p.Usage:
		return exitUsage
	case errors.Is(err, control.ErrNoAgent):
		return exitNoAgent
	}
	return exitFailure
}
