package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

func newReload(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the configuration files read anew",
		Long: `Have the agent read its configuration files anew, and say which they are. It does that by
itself when one of them changes; this waits for it, and fails with 1 where one has mistakes,
which then changes nothing. Connections go on, and so do forwards that stay as they are.`,
		Example: "  rum-host-agent reload",
		Args:    atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			look := output.Look{Colour: output.Colours(os.Stdout), Width: output.Width(os.Stdout)}
			return ask.Reload(c.Context(), c.OutOrStdout(), s.socket, look)
		},
	}
}
