package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

func newStatus(s *shared) *cobra.Command {
	var (
		show  ask.Show
		watch bool
	)
	c := &cobra.Command{
		Use:   "status [VM]",
		Short: "Show VMs and their forwards",
		Long: `Show VMs and their forwards, what should be seen to first. It exits 3 where no agent
runs, and 1 where rum.toml, a project of rum's or libvirt is in error, as far as the VM
has to do with it.

It is as wide as the terminal, or as COLUMNS says, and of any width in a pipe. Of all VMs
it shows about 200 forwards, problems before others, and counts the rest, in a pipe too; of
one VM it shows 1000, and with --json all.`,
		Example: "  rum-host-agent status dev --port 8080\n  rum-host-agent status --state claim --watch",
		Args:    atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				show.VM = args[0]
			}
			show.Look = output.Look{Colour: output.Colours(os.Stdout), Width: output.Width(os.Stdout), Flag: ask.SocketFlag(s.socket)}
			switch {
			case watch && show.JSON:
				return output.Misuse(errors.New("--watch is for people; for programs there is: rum-host-agent watch --json"))
			case watch:
				return show.Watch(c.Context(), c.OutOrStdout(), s.socket, func() (width, height int) {
					return output.Width(os.Stdout), output.Height(os.Stdout)
				})
			}
			return show.Status(c.Context(), c.OutOrStdout(), s.socket)
		},
	}
	c.Flags().BoolVar(&show.JSON, "json", false, "print JSON")
	c.Flags().BoolVar(&watch, "watch", false, "show it anew each second, with what forwards carry")
	c.Flags().Var(&show.Port, "port", "only this `PORT`, in the VM or here")
	c.Flags().StringVar(&show.State, "state", "", "only what is in this `STATE`: active, claim, denied or ignored for a forward;\nconnected, connecting, paused, down or incompatible for a VM")
	return c
}
