package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

func newForward(s *shared) *cobra.Command {
	c := &cobra.Command{
		Use:   "forward",
		Short: "Add forwards to the rules of a running agent",
		Long: `Add forwards to the rules of a running agent, before those of rum.toml and until the
agent ends; take them back, or list them. Each is as a rule: a port of the VM is there
beside the places of rules for exactly the same ports, as guest = 80 for 8080:80, and in
the place of those of all other rules, as ranges and ignore = true. A host port that
something else has is a claim. All exit 1 where the agent refuses, 2 on bad usage, and 3 where no agent runs.`,
		Example: "  rum-host-agent forward add 8080:80 --vm dev\n  rum-host-agent forward rm 8080:80 --vm dev",
		Args:    noSubcommand,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var list ask.Forward
	l := &cobra.Command{
		Use: "list", Short: "List what was added, and what has become of it", Args: atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			list.Look = output.Look{Colour: output.Colours(os.Stdout), Width: output.Width(os.Stdout)}
			return list.List(c.Context(), c.OutOrStdout(), s.socket)
		},
	}
	l.Flags().StringVar(&list.VM, "vm", "", "the `VM`; without it all")
	l.Flags().BoolVar(&list.JSON, "json", false, "print JSON")
	c.AddCommand(newForwardAdd(s), newForwardRemove(s), l)
	return c
}
