package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

func newWatch(s *shared) *cobra.Command {
	var watch ask.Watch
	c := &cobra.Command{
		Use:   "watch [VM]",
		Short: "Show what happens to VMs and forwards, line by line",
		Long: `Show what happens to VMs and forwards, line by line, until interrupted: forwarding,
stopped, claim, claimed, denied, path changed, VM up and down, agent outdated.

It exits 0 when interrupted, 3 where no agent runs, and 1 when the agent ends; it does
not wait for another.`,
		Example: "  rum-host-agent watch --since 10m\n  rum-host-agent watch dev --json",
		Args:    atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				watch.VM = args[0]
			}
			watch.Colour = output.Colours(os.Stdout)
			return watch.Run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), s.socket)
		},
	}
	c.Flags().BoolVar(&watch.JSON, "json", false, "print JSON, an object on each line")
	c.Flags().StringVar(&watch.Since, "since", "", "begin with what happened within this `DURATION`, such as 10m, or after\na cursor that --json showed")
	return c
}
