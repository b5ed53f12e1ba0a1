package ask

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// timeout bounds the whole answer of an agent on this machine, which may be tens of
// megabytes; a [control.Client] gives up sooner if it does not begin.
const timeout = 30 * time.Second

// Status asks the agent at a socket.
func Status(ctx context.Context, socket string, q status.Query) (status.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	st, err := control.NewClient(socket).StatusOf(ctx, q)
	return st, advise(err)
}

// advise says what to do where an agent does not answer.
func advise(err error) error {
	switch {
	case errors.Is(err, control.ErrNoAgent):
		return output.Advise(err, "start it with: rum-host-agent run")
	case errors.Is(err, fs.ErrPermission):
		return output.Advise(err, "ask as the user who runs the agent")
	}
	return err
}

// noVM is the error of asking about a VM that the agent does not serve.
func noVM(ctx context.Context, socket, name string) error {
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
	return output.Advise(fmt.Errorf("there is no VM %q", name), hint)
}
