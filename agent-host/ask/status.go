package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// maxRows is how many forwards are shown to people who ask about all VMs; the others are
// counted.
const maxRows = 200

// Show is how a status is to be shown.
type Show struct {
	VM    string // the only one; empty for all
	Port  Number // the only one, in the VM or here; 0 for all
	State string // of forwards, or of VMs; empty for all
	JSON  bool
	Look  output.Look
}

// vmStates are those of VMs that may be asked for.
var vmStates = []string{status.Connected, status.Connecting, status.Paused, status.Down, status.Incompatible}

// Check tells of a command line that cannot be carried out.
func (s *Show) Check() error {
	if all := slices.Concat(status.ForwardStates, vmStates); s.State != "" && !slices.Contains(all, s.State) {
		return output.Misuse(fmt.Errorf("--state %q: want one of %s", s.State, strings.Join(all, ", ")))
	}
	return nil
}

func (s *Show) query() status.Query {
	q := status.Query{VM: s.VM, Port: uint16(s.Port), Rows: maxRows}
	if slices.Contains(status.ForwardStates, s.State) {
		q.State = s.State
	}
	if s.VM != "" {
		q.Rows = output.MaxRowsOfVM
	}
	return q
}

// of leaves out the VMs that are not wanted. The state of a forward, or a port, leaves those that have one.
func (s *Show) of(st status.Status) status.Status {
	st.VMs = slices.DeleteFunc(st.VMs, func(vm status.VM) bool {
		if slices.Contains(vmStates, s.State) {
			return vm.State != s.State || s.Port != 0 && len(vm.Forwards) == 0
		}
		return (s.State != "" || s.Port != 0) && len(vm.Forwards) == 0
	})
	return st
}

// maxServed bounds how many VMs are named where none is shown.
const maxServed = 10

// none is what is said where of VMs, which there are, none has what is asked for.
func (s *Show) none(vms []status.VM) string {
	if len(vms) == 0 {
		return ""
	}
	var names, wanted []string
	for _, vm := range vms[:min(len(vms), maxServed)] {
		names = append(names, output.Clean(vm.Name))
	}
	of := strings.Join(names, ", ")
	if more := len(vms) - len(names); more > 0 {
		of += fmt.Sprintf(" and %d more", more)
	}
	if s.Port != 0 {
		wanted = append(wanted, fmt.Sprintf("has port %d", s.Port))
	}
	if s.State != "" {
		wanted = append(wanted, "is "+s.State)
	}
	if slices.Contains(vmStates, s.State) {
		return fmt.Sprintf("none of %s %s", of, strings.Join(wanted, " and "))
	}
	return fmt.Sprintf("no forward of %s %s", of, strings.Join(wanted, " and "))
}

// table writes for people what is wanted of a status.
func (s *Show) table(w io.Writer, st status.Status, look output.Look) error {
	look.None = s.none(st.VMs)
	return output.Status(w, s.of(st), look)
}

// Status writes the status of the agent at a socket. The error also tells a script what a
// person reads: that what is shown is not all as it should be.
func (s *Show) Status(ctx context.Context, w io.Writer, socket string) error {
	if err := s.Check(); err != nil {
		return err
	}
	q := s.query()
	if s.JSON && s.State == "" && s.Port == 0 {
		q.Rows = 1 // for what is in error; the whole is passed on as it is
	}
	st, err := s.ask(ctx, socket, q)
	if err != nil {
		return err
	}
	switch {
	case q.Rows == 1:
		err = writeJSON(ctx, w, socket, q.VM)
	case s.JSON:
		err = indented(w, s.of(st))
	default:
		err = s.table(w, st, s.Look)
	}
	if err != nil {
		return err
	}
	return inError(st)
}

func (s *Show) ask(ctx context.Context, socket string, q status.Query) (status.Status, error) {
	st, err := Status(ctx, socket, q)
	if err != nil || q.VM == "" {
		return st, err
	}
	if len(st.VMs) == 0 {
		return st, NoVM(ctx, socket, q.VM)
	}
	return about(st, q.VM), nil
}

func indented(w io.Writer, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", text)
	}
	return err
}

// watchEvery is the time between two looks, over which rates are taken.
const watchEvery = time.Second

// Watch writes the status again and again, with the rates of forwards, until ctx ends, which is
// no error. On a terminal, of which size gives the columns and lines at that moment, each
// fits and takes the place of the one before; no lines are no terminal.
func (s *Show) Watch(ctx context.Context, w io.Writer, socket string, size func() (width, height int)) error {
	if err := s.Check(); err != nil {
		return err
	}
	var before status.Status
	var at time.Time
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		q, look := s.query(), s.Look
		var height int
		if look.Width, height = size(); height > 0 {
			q.Rows = min(q.Rows, height)
			look.Height = max(1, height-1) // the cursor has a line of its own
		}
		st, err := s.ask(ctx, socket, q)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !at.IsZero() && errors.Is(err, control.ErrNoAgent):
			return output.Advise(fmt.Errorf("%w: it has ended", control.ErrNoAgent), "start it again with: "+Command(socket, "run"))
		case err != nil:
			return err
		}
		now := time.Now()
		look.Rates = output.RatesOf(before, st, now.Sub(at))
		before, at = st, now
		var b strings.Builder
		if height > 0 {
			b.WriteString("\x1b[H\x1b[2J") // home, and clear the screen
		}
		if err := s.table(&b, st, look); err != nil {
			return err
		}
		if height == 0 {
			b.WriteByte('\n')
		}
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// about leaves out what is wrong with projects and files that the VM of that name has nothing of.
func about(st status.Status, vm string) status.Status {
	for i := range st.Projects {
		if c := &st.Projects[i]; c.VM != vm {
			c.Error = ""
		}
	}
	st.Discovery = slices.DeleteFunc(st.Discovery, func(d status.Discovery) bool {
		return d.Host != "" && !strings.HasPrefix(vm, d.Host+"/")
	})
	st.Refused = slices.DeleteFunc(st.Refused, func(r status.Refused) bool {
		return !projects.MayBeOf(r.Path, vm)
	})
	if slices.ContainsFunc(st.VMs, func(v status.VM) bool { return v.Config != nil }) {
		st.Config.Error = ""
	}
	return st
}

// inError makes a script see what a person reads: that what is shown is not all as it should be.
func inError(st status.Status) error {
	if st.Config.Error != "" {
		return output.Advise(errors.New("the configuration is in error, and the last good one in use"), "correct "+output.Clean(st.Config.File)+" as status says")
	}
	for _, c := range st.Projects {
		if c.Error != "" {
			return output.Advise(fmt.Errorf("the configuration of %s is in error, and the last good one in use", output.Clean(c.VM)), "correct "+output.Clean(c.File)+" as status says")
		}
	}
	if len(st.Refused) > 0 {
		return output.Advise(fmt.Errorf("no project is taken from %s", output.Clean(st.Refused[0].Path)), "do what status says")
	}
	for _, d := range st.Discovery {
		if d.Error != "" {
			return output.Advise(fmt.Errorf("%s does not answer, and its VMs are those last seen", output.Clean(d.Source)), "do what status says")
		}
	}
	return nil
}

// writeJSON passes on what the agent knows, of one VM or, if that is empty, of all,
// indented.
func writeJSON(ctx context.Context, w io.Writer, socket, vm string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, err := control.NewClient(socket).StatusJSON(ctx, status.Query{VM: vm})
	if err != nil {
		return Advise(socket, err)
	}
	defer body.Close()
	in := jsontext.NewDecoder(body, jsontext.AllowDuplicateNames(true))
	out := jsontext.NewEncoder(w, jsontext.AllowDuplicateNames(true), jsontext.WithIndent("  "))
	for {
		token, err := in.ReadToken()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the answer of the agent: %w", err)
		}
		if err := out.WriteToken(token); err != nil {
			return err
		}
	}
}
