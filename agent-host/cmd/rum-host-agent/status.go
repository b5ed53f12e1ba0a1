package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

func newStatus(s *shared) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status [VM]",
		Short: "Show VMs and their forwards",
		Long: `Show VMs and their forwards. It exits 3 where no agent runs, and 1 where rum.toml, a
project of rum's or libvirt is in error, as far as the VM has to do with it.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			q := status.Query{Rows: maxRows}
			switch {
			case asJSON:
				q.Rows = 1 // for what is in error; the whole is passed on as it is
			case len(args) == 1:
				q.Rows = output.MaxRowsOfVM
			}
			if len(args) == 1 {
				q.VM = args[0]
			}
			st, err := askStatus(ctx, s.socket, q)
			if err != nil {
				return err
			}
			if q.VM != "" {
				if len(st.VMs) == 0 {
					return noVM(ctx, s.socket, q.VM)
				}
				st = about(st, q.VM)
			}
			if asJSON {
				err = writeJSON(ctx, c.OutOrStdout(), s.socket, q.VM)
			} else {
				err = output.Status(c.OutOrStdout(), st, output.Colours(os.Stdout))
			}
			if err != nil {
				return err
			}
			return inError(st)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// about leaves out what is wrong with projects and files that the VM of that name has nothing of.
func about(st status.Status, vm string) status.Status {
	for i := range st.Projects {
		if c := &st.Projects[i]; c.VM != vm {
			c.Error = ""
		}
	}
	st.Refused = slices.DeleteFunc(st.Refused, func(r status.Refused) bool {
		return !mayBeOf(r.Path, vm)
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

// askTimeout bounds the whole answer of an agent on this machine, which may be tens
// of megabytes; a [control.Client] gives up sooner if it does not begin.
const askTimeout = 30 * time.Second

// maxRows is how many forwards are shown to people who ask about all VMs; the others are
// counted.
const maxRows = 200

func askStatus(ctx context.Context, socket string, q status.Query) (status.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st, err := control.NewClient(socket).StatusOf(ctx, q)
	return st, adviseAsker(err)
}

func adviseAsker(err error) error {
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
	st, err := askStatus(ctx, socket, status.Query{Rows: 1})
	if err != nil {
		return err
	}
	var names []string
	for _, vm := range st.VMs {
		names = append(names, output.Clean(vm.Name))
	}
	hint := "the agent serves no VM"
	if len(names) > 0 {
		hint = "the agent serves: " + strings.Join(names, ", ")
	}
	return output.Advise(fmt.Errorf("there is no VM %q", name), hint)
}

// writeJSON passes on what the agent knows, of one VM or, if that is empty, of all,
// indented.
func writeJSON(ctx context.Context, w io.Writer, socket, vm string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	body, err := control.NewClient(socket).StatusJSON(ctx, status.Query{VM: vm})
	if err != nil {
		return adviseAsker(err)
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
