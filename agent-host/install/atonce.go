package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// atOnce is how many agents are replaced at a time: each binary takes memory here, and VMs share a disk.
const atOnce = 4

// upgrades are those of one command.
type upgrades struct {
	order  *Upgrade
	socket string
	stderr io.Writer

	mu     sync.Mutex
	stdout io.Writer
	all    []upgraded // in the order of the VMs; without a name for one that was not come to
	failed []error
}

// one replaces the agent of a VM, and says what became of it.
func (r *upgrades) one(ctx context.Context, i int, vm status.VM) {
	o, several := r.order, len(r.all) > 1
	var stderr io.Writer = &namedWriter{output.Clean(vm.Name), r.stderr}
	progress := r.stderr
	if several {
		progress = stderr
	}
	had, err := o.upgrade(ctx, vm, stderr, progress, r.socket)
	r.mu.Lock()
	defer r.mu.Unlock()
	u := upgraded{VM: vm.Name, From: vm.AgentVersion, To: o.Version}
	switch {
	case err != nil:
		u.Error = err.Error()
		r.failed = append(r.failed, err)
		if several {
			hint := ""
			if p, ok := errors.AsType[*output.Problem](err); ok {
				hint = p.Hint
			}
			var said bytes.Buffer
			output.Say(&said, err, hint)
			_, _ = r.stderr.Write(said.Bytes()) // as one, beside what the others say
		}
	case o.JSON:
	case had:
		fmt.Fprintf(r.stdout, "%s has %s already\n", output.Clean(vm.Name), o.Version)
	case vm.AgentVersion == o.Version:
		fmt.Fprintf(r.stdout, "%s has this build of %s now, and had another\n", output.Clean(vm.Name), o.Version)
	default:
		fmt.Fprintf(r.stdout, "%s has %s now, and had %s\n", output.Clean(vm.Name), o.Version, output.Clean(vm.AgentVersion))
	}
	r.all[i] = u
}

// lockedWriter is for several at a time, each of whose writes is whole lines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// namedWriter has a VM's name before each line, each of which is a write.
type namedWriter struct {
	name string
	w    io.Writer
}

func (n *namedWriter) Write(b []byte) (int, error) {
	_, err := fmt.Fprintf(n.w, "%s: %s", n.name, b)
	return len(b), err
}
