package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

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
	VM     string // the only one; empty for all
	JSON   bool
	Colour bool
}

// Status writes the status of the agent at a socket. The error also tells a script what a
// person reads: that what is shown is not all as it should be.
func (s *Show) Status(ctx context.Context, w io.Writer, socket string) error {
	q := status.Query{VM: s.VM, Rows: maxRows}
	switch {
	case s.JSON:
		q.Rows = 1 // for what is in error; the whole is passed on as it is
	case s.VM != "":
		q.Rows = output.MaxRowsOfVM
	}
	st, err := Status(ctx, socket, q)
	if err != nil {
		return err
	}
	if q.VM != "" {
		if len(st.VMs) == 0 {
			return noVM(ctx, socket, q.VM)
		}
		st = about(st, q.VM)
	}
	if s.JSON {
		err = writeJSON(ctx, w, socket, q.VM)
	} else {
		err = output.Status(w, st, s.Colour)
	}
	if err != nil {
		return err
	}
	return inError(st)
}

// about leaves out what is wrong with projects and files that the VM of that name has nothing of.
func about(st status.Status, vm string) status.Status {
	for i := range st.Projects {
		if c := &st.Projects[i]; c.VM != vm {
			c.Error = ""
		}
	}
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
		return advise(err)
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
