package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

func newForward(s *shared) *cobra.Command {
	var o ask.Forward
	c := &cobra.Command{
		Use:   "forward",
		Short: "Add forwards to the rules of a running agent",
		Long: `Add forwards to the rules of a running agent, before those of rum.toml and until the
agent ends; take them back, or list them. As with a rule, a host port that something else
has is a claim, and a guest port is there that no other rule would let out.`,
		Example: "  rum-host-agent forward add 8080:80 --vm dev\n  rum-host-agent forward rm 8080:80 --vm dev",
		Args:    noSubcommand,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	ports := func(use, short string, run func(*cobra.Command, string) error) *cobra.Command {
		sub := &cobra.Command{
			Use: use + " [HOST:]GUEST", Short: short, Args: exactlyOne("[HOST:]GUEST"),
			Long: short + ". [HOST:]GUEST is a port or a range on each\nside; without HOST it is the same port here.",
			RunE: func(c *cobra.Command, args []string) error { return run(c, args[0]) },
		}
		sub.Flags().BoolVar(&o.UDP, "udp", false, "UDP ports")
		return sub
	}
	add := ports("add", "Forward a port of a VM", func(c *cobra.Command, p string) error { return o.Add(c.Context(), c.OutOrStdout(), s.socket, p) })
	add.Flags().BoolVar(&o.Save, "save", false, "write it into the rum.toml of the VM's project, before the first rule that would\ndecide in its place; then it stays")
	add.Flags().DurationVar(&o.Hold, "hold", 0, "let clients wait for the service for this `DURATION`, such as 5s")
	rm := ports("rm", "Take back what was added", func(c *cobra.Command, p string) error { return o.Remove(c.Context(), c.OutOrStdout(), s.socket, p) })
	list := &cobra.Command{
		Use: "list", Short: "List what was added, and what has become of it", Args: atMost(0),
		RunE: func(c *cobra.Command, _ []string) error { return o.List(c.Context(), c.OutOrStdout(), s.socket) },
	}
	list.Flags().BoolVar(&o.JSON, "json", false, "print JSON")
	for _, sub := range []*cobra.Command{add, rm, list} {
		sub.Flags().StringVar(&o.VM, "vm", "", "the `VM`; add and rm need it where there are several")
		c.AddCommand(sub)
	}
	o.Look = output.Look{Colour: output.Colours(os.Stdout), Width: output.Width(os.Stdout)}
	return c
}
