package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// mapping is what [HOST:]GUEST is.
const mapping = ". [HOST:]GUEST is a port or a range on each side;\nwithout HOST it is the same port here."

func newForwardAdd(s *shared) *cobra.Command {
	var o ask.Forward
	c := newMapped("add", "Forward a port of a VM", &o)
	c.RunE = func(c *cobra.Command, args []string) error {
		return o.Add(c.Context(), c.OutOrStdout(), s.socket, args[0])
	}
	c.Flags().DurationVar(&o.Hold, "hold", 0, "keep the port open when the service goes, and let clients wait this `DURATION`,\nsuch as 5s, for it to come back; one that never ran is not waited for")
	c.Flags().BoolVar(&o.Save, "save", false, "write it into the rum.toml of the VM's project, before the first rule that would\ndecide in its place; then it stays")
	return c
}

func newForwardRemove(s *shared) *cobra.Command {
	var o ask.Forward
	c := newMapped("rm", "Take back what was added", &o)
	c.RunE = func(c *cobra.Command, args []string) error {
		return o.Remove(c.Context(), c.OutOrStdout(), s.socket, args[0])
	}
	return c
}

func newMapped(name, short string, o *ask.Forward) *cobra.Command {
	c := &cobra.Command{Use: name + " [HOST:]GUEST", Short: short, Long: short + mapping, Args: exactlyOne("[HOST:]GUEST")}
	c.PreRun = func(*cobra.Command, []string) {
		o.Look = output.Look{Colour: output.Colours(os.Stdout), Width: output.Width(os.Stdout)}
	}
	c.Flags().StringVar(&o.VM, "vm", "", "the `VM`; needed where there are several")
	c.Flags().BoolVar(&o.UDP, "udp", false, "UDP ports")
	return c
}
