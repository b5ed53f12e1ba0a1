package ask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/shellword"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// timeout bounds the whole answer of an agent on this machine, which may be tens of
// megabytes; a [control.Client] gives up sooner if it does not begin.
const timeout = 30 * time.Second

// Status asks the agent at a socket.
func Status(ctx context.Context, socket string, q status.Query) (status.Status, error) {
	return statusFrom(ctx, control.NewClient(socket), socket, q)
}

func statusFrom(ctx context.Context, c *control.Client, socket string, q status.Query) (status.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	st, err := c.StatusOf(ctx, q)
	return st, Advise(socket, err)
}

// Advise says what to do where the agent at a socket does not answer, and of others that may.
func Advise(socket string, err error) error {
	switch {
	case errors.Is(err, control.ErrNoAgent):
		hint := "start it with: " + Command(socket, "run")
		for _, o := range control.Others(socket) {
			hint += "\nan agent of " + Of(o) + " runs; see it with: " + Seeing(o)
		}
		return output.Advise(err, hint)
	case errors.Is(err, fs.ErrPermission):
		hint := "ask as the user who runs the agent"
		if _, looks := errors.AsType[*control.RefusedError](err); looks {
			hint += ", at that agent's own socket"
		} else if o, ok := control.OwnerOf(socket); ok {
			hint = "an agent of " + Of(o) + " runs there; see it with: " + Seeing(o)
		}
		return output.Advise(err, hint)
	}
	return err
}

// Of names whose an agent is.
func Of(o control.Other) string {
	if o.UID == os.Getuid() {
		return "yours"
	}
	return output.Clean(o.User)
}

// Seeing is the command that shows the status of another agent.
func Seeing(o control.Other) string {
	command := "rum-host-agent status --socket " + shellword.Quote(o.Socket)
	switch o.UID {
	case os.Getuid():
		return command
	case 0:
		return "sudo " + command
	}
	return "sudo -u " + output.Clean(o.User) + " " + command
}

// NoVM is the error of asking about a VM that the agent does not serve.
func NoVM(ctx context.Context, socket, name string) error {
	st, err := Status(ctx, socket, status.Query{Rows: 1})
	if err != nil {
		return err
	}
	var names []string
	for _, vm := range st.VMs {
		names = append(names, output.Clean(vm.Name))
	}
	if name == "" {
		return output.Advise(errors.New("the agent serves no VM"), "start one, or name one with: rum-host-agent run --vm")
	}
	hint := "the agent serves no VM"
	if len(names) > 0 {
		hint = "the agent serves: " + strings.Join(names, ", ")
	}
	for _, d := range st.Discovery {
		if d.Host != "" && strings.HasPrefix(name, d.Host+"/") && d.State != status.Connected {
			return fmt.Errorf("nothing is known of a VM %q: %s cannot be asked: %s", name, output.Clean(d.Source), cmp.Or(d.Error, "it has not answered yet"))
		}
	}
	return output.Advise(fmt.Errorf("there is no VM %q", name), hint)
}
