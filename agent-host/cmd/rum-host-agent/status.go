package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

func newStatus(s *shared) *cobra.Command {
	var show ask.Show
	c := &cobra.Command{
		Use:   "status [VM]",
		Short: "Show VMs and their forwards",
		Long: `Show VMs and their forwards. It exits 3 where no agent runs, and 1 where rum.toml, a
project of rum's or libvirt is in error, as far as the VM has to do with it.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				show.VM = args[0]
			}
			show.Colour = output.Colours(os.Stdout)
			return show.Status(c.Context(), c.OutOrStdout(), s.socket)
		},
	}
	c.Flags().BoolVar(&show.JSON, "json", false, "print JSON")
	return c
}
