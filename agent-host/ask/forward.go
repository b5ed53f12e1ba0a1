package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/rulefile"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Forward is what a command wants of the forwards that are added to the rules.
type Forward struct {
	VM   string // empty for the only one; of a list, for all
	UDP  bool
	Hold time.Duration
	Save bool // into the file of the VM's project, and not in the agent
	JSON bool
	Look output.Look
}

func (o *Forward) of(ports string) control.Forward {
	f := control.Forward{VM: o.VM, Ports: ports, Proto: "tcp", Hold: o.Hold}
	if o.UDP {
		f.Proto = "udp"
	}
	return f
}

// Add has ports forwarded, which are [HOST:]GUEST, and writes what has become of them.
func (o *Forward) Add(ctx context.Context, w io.Writer, socket, ports string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if o.Save {
		return o.save(ctx, w, socket, ports)
	}
	added, err := control.NewClient(socket).AddForward(ctx, o.of(ports))
	if err != nil {
		return refused(socket, err)
	}
	undo := []string{"forward", "rm", added.Ports(), "--vm", added.VM}
	if added.Proto == "udp" {
		undo = append(undo, "--udp")
	}
	return output.ForwardAdded(w, added, Command(socket, undo...), o.Look)
}

// save puts the rule into the file of the VM's project, which the agent follows.
func (o *Forward) save(ctx context.Context, w io.Writer, socket, ports string) error {
	m, err := config.ParseMapping(ports, config.Proto(o.of(ports).Proto))
	if err == nil {
		_, err = m.Rule("", o.Hold)
	}
	if err != nil {
		return output.Misuse(err)
	}
	// Only an agent of this user's says which file it is: another's might name any.
	st, err := statusFrom(ctx, control.NewOwnClient(socket), socket, status.Query{VM: o.VM, Rows: 1})
	switch {
	case err != nil:
		return err
	case len(st.VMs) == 0:
		return NoVM(ctx, socket, o.VM)
	case len(st.VMs) > 1:
		return output.Misuse(errors.New("into the file of which VM? name it with --vm"))
	}
	rule, file := rulefile.Rule{Mapping: m, Hold: o.Hold}, st.VMs[0].Config
	vm := st.VMs[0].Name
	if file == nil {
		rule.VM = vm // the file is for others too
		return output.Advise(fmt.Errorf("%s has no project, and with that no file of its own: its rules are those of %s", vm, st.Config.File), byHand(st.Config.File, vm, rule))
	}
	saved, err := rulefile.Save(ctx, file.File, rule)
	switch {
	case errors.Is(err, rulefile.ErrByHand):
		return output.Advise(err, byHand(file.File, vm, rule))
	case errors.Is(err, rulefile.ErrTaken):
		return output.Advise(err, "change that rule by hand, or name another host port")
	case err != nil:
		return err
	}
	what := "has it now" + output.InPlaceOf(saved.InPlaceOf) + ", and the agent that follows the file uses it at once"
	if !saved.Added {
		what = "has it already"
	}
	_, err = fmt.Fprintf(w, "%s:%d %s\n", output.Clean(file.File), saved.Line, what)
	return err
}

// byHand says what to put into a file, and where, so that it decides about the ports of a VM.
func byHand(path, vm string, r rulefile.Rule) string {
	above := ""
	// A relative path is one of the agent's directory, and means another file here.
	if line := rulefile.Above(path, vm, r); line > 0 && filepath.IsAbs(path) {
		above = fmt.Sprintf(", above line %d, which decides in its place otherwise", line)
	}
	return "put it there by hand" + above + ":\n" + r.Text(false)
}

// Remove takes back what Add has added.
func (o *Forward) Remove(ctx context.Context, w io.Writer, socket, ports string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	f, err := control.NewClient(socket).RemoveForward(ctx, o.of(ports))
	if err != nil {
		return refused(socket, err)
	}
	return output.ForwardRemoved(w, f, o.Look)
}

// List writes what was added.
func (o *Forward) List(ctx context.Context, w io.Writer, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	all, err := control.NewClient(socket).Forwards(ctx, o.VM)
	switch {
	case err != nil:
		return refused(socket, err)
	case o.JSON:
		return indented(w, struct {
			Forwards []status.Added `json:"forwards"`
		}{all})
	}
	return output.ForwardsAdded(w, all, o.Look)
}

// refused tells why an agent does not do what a command wants. What no agent could do is bad
// usage.
func refused(socket string, err error) error {
	if r, ok := errors.AsType[*control.RefusedError](err); ok {
		switch r.Status {
		case http.StatusBadRequest:
			return output.Misuse(errors.New(r.Text))
		case http.StatusNotFound, http.StatusConflict:
			return errors.New(r.Text)
		}
	}
	return Advise(socket, err)
}
