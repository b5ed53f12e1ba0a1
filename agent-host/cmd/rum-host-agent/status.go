package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/control"
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
			var q control.Query
			switch {
			case len(args) == 1:
				q.VM = args[0]
			case !asJSON:
				q.Rows = maxRows
			}
			text, err := askJSON(c.Context(), s.socket, q)
			if err != nil {
				return err
			}
			st, err := decodeStatus(text, asJSON)
			if err != nil {
				return err
			}
			if q.VM != "" && len(st.VMs) == 0 {
				return noVM(c.Context(), s.socket, q.VM)
			}
			if q.VM != "" {
				st = about(st, q.VM)
			}
			if asJSON {
				err = printJSON(c.OutOrStdout(), text)
			} else {
				err = printStatus(c.OutOrStdout(), st, colours(os.Stdout))
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
func about(st control.Status, vm string) control.Status {
	for i := range st.Projects {
		if c := &st.Projects[i]; c.VM != vm {
			c.Error = ""
		}
	}
	st.Refused = slices.DeleteFunc(st.Refused, func(r control.Refused) bool {
		return !mayBeOf(r.Path, vm)
	})
	if slices.ContainsFunc(st.VMs, func(v control.VM) bool { return v.Config != nil }) {
		st.Config.Error = ""
	}
	return st
}

// inError makes a script see what a person reads: that what is shown is not all as it should be.
func inError(st control.Status) error {
	if st.Config.Error != "" {
		return advise(errors.New("the configuration is in error, and the last good one in use"), "correct "+clean(st.Config.File)+" as status says")
	}
	for _, c := range st.Projects {
		if c.Error != "" {
			return advise(fmt.Errorf("the configuration of %s is in error, and the last good one in use", clean(c.VM)), "correct "+clean(c.File)+" as status says")
		}
	}
	if len(st.Refused) > 0 {
		return advise(fmt.Errorf("no project is taken from %s", clean(st.Refused[0].Path)), "do what status says")
	}
	for _, d := range st.Discovery {
		if d.Error != "" {
			return advise(fmt.Errorf("%s does not answer, and its VMs are those last seen", clean(d.Source)), "do what status says")
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

func askStatus(ctx context.Context, socket string, q control.Query) (control.Status, error) {
	text, err := askJSON(ctx, socket, q)
	if err != nil {
		return control.Status{}, err
	}
	return decodeStatus(text, false)
}

func askJSON(ctx context.Context, socket string, q control.Query) ([]byte, error) {
	debug.SetGCPercent(400) // this program ends with the answer
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	text, err := control.NewClient(socket).StatusJSON(ctx, q)
	switch {
	case errors.Is(err, control.ErrNoAgent):
		err = advise(err, "start it with: rum-host-agent run")
	case errors.Is(err, fs.ErrPermission):
		err = advise(err, "ask as the user who runs the agent")
	}
	return text, err
}

// noVM is the error of asking about a VM that the agent does not serve.
func noVM(ctx context.Context, socket, name string) error {
	st, err := askStatus(ctx, socket, control.Query{Rows: 1})
	if err != nil {
		return err
	}
	var names []string
	for _, vm := range st.VMs {
		names = append(names, clean(vm.Name))
	}
	hint := "the agent serves no VM"
	if len(names) > 0 {
		hint = "the agent serves: " + strings.Join(names, ", ")
	}
	return advise(fmt.Errorf("there is no VM %q", name), hint)
}

// decodeStatus decodes a status; in short, only the names of the VMs: what is
// passed on as it is may be tens of megabytes.
func decodeStatus(text []byte, short bool) (st control.Status, err error) {
	if !short {
		return st, json.Unmarshal(text, &st)
	}
	var head struct {
		control.Status
		VMs []struct {
			Name string `json:"name"`
		} `json:"vms"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return st, err
	}
	for _, vm := range head.VMs {
		head.Status.VMs = append(head.Status.VMs, control.VM{Name: vm.Name})
	}
	return head.Status, nil
}

// printJSON writes JSON for people and scripts.
func printJSON(w io.Writer, text []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return err
	}
	_, err := b.WriteTo(w)
	return err
}
