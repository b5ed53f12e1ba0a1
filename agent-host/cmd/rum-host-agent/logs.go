package main

import (
	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
)

func newLogs(s *shared) *cobra.Command {
	var logs ask.Logs
	c := &cobra.Command{
		Use:   "logs VM",
		Short: "Show the log of a VM's guest agent",
		Long: `Show the last lines of the log of the agent in a VM. It keeps a thousand of them, of
256 KiB together, since it was started, whatever else keeps its log in the VM. Only an
agent that has this host's key shows them.

With --follow it goes on until it is interrupted, which is no failure, or the agent ends.
It exits 3 where no agent runs here.`,
		Example: "  rum-host-agent logs dev -n 20\n  rum-host-agent logs dev --follow",
		Args:    exactlyOne("VM"),
		RunE: func(c *cobra.Command, args []string) error {
			logs.VM = args[0]
			return logs.Run(c.Context(), c.OutOrStdout(), s.socket)
		},
	}
	c.Flags().BoolVarP(&logs.Follow, "follow", "f", false, "go on with what is logged from now on")
	c.Flags().Uint32VarP(&logs.Lines, "lines", "n", 1000, "show at most the last `N` lines")
	return c
}
