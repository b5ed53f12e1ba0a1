package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

func newRelease(s *shared) *cobra.Command {
	var about ask.Port
	c := &cobra.Command{
		Use:   "release PORT",
		Short: "Give a port of this host back",
		Long: `Give a port of this host back to whoever wants it here now. The forwards that have it,
on the addresses of their VMs too, stay in the VMs until what listens there stops; their
connections go on. An agent that starts anew has forgotten it. With --vm only that VM's do, and another VM's may have it next.`,
		Example: "  rum-host-agent release 8080 && npm start",
		Args:    exactlyOne("PORT"),
		RunE: func(c *cobra.Command, args []string) error {
			about.Look = output.Look{Colour: output.Colours(os.Stdout), Width: output.Width(os.Stdout)}
			return about.Release(c.Context(), c.OutOrStdout(), s.socket, args[0])
		},
	}
	c.Flags().StringVar(&about.VM, "vm", "", "the `VM`; without it all")
	c.Flags().BoolVar(&about.UDP, "udp", false, "a UDP port")
	return c
}
