package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
		Long: `Show VMs and their forwards. It exits 3 where no agent runs, and 1 where rum.toml or
libvirt is in error.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			st, err := askStatus(c.Context(), s.socket)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if st.VMs, err = only(st.VMs, args[0]); err != nil {
					return err
				}
			}
			if asJSON {
				err = printJSON(c.OutOrStdout(), st)
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

// inError makes a script see what a person reads: that what is shown is not all as it should be.
func inError(st control.Status) error {
	if st.Config.Error != "" {
		return advise(errors.New("the configuration is in error, and the last good one in use"), "correct "+clean(st.Config.File)+" as status says")
	}
	for _, d := range st.Discovery {
		if d.Error != "" {
			return advise(fmt.Errorf("%s does not answer, and its VMs are those last seen", clean(d.Source)), "do what status says")
		}
	}
	return nil
}

// askTimeout bounds the question to an agent on this machine.
const askTimeout = 5 * time.Second

func askStatus(ctx context.Context, socket string) (control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st, err := control.NewClient(socket).Status(ctx)
	switch {
	case errors.Is(err, control.ErrNoAgent):
		err = advise(err, "start it with: rum-host-agent run")
	case errors.Is(err, fs.ErrPermission):
		err = advise(err, "ask as the user who runs the agent")
	}
	return st, err
}

// only keeps the VM of that name.
func only(vms []control.VM, name string) ([]control.VM, error) {
	i := slices.IndexFunc(vms, func(vm control.VM) bool { return vm.Name == name })
	if i >= 0 {
		return vms[i : i+1], nil
	}
	var names []string
	for _, vm := range vms {
		names = append(names, clean(vm.Name))
	}
	hint := "the agent serves no VM"
	if len(names) > 0 {
		hint = "the agent serves: " + strings.Join(names, ", ")
	}
	return nil, advise(fmt.Errorf("there is no VM %q", name), hint)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
