package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

// shared are the flags of all subcommands.
type shared struct {
	socket string
}

func newRoot() *cobra.Command {
	var s shared
	root := &cobra.Command{
		Use:           "rum-host-agent",
		Short:         "Makes the ports of VMs reachable on this host",
		Long:          "rum-host-agent makes a service that listens in a VM answer at the same port of\nlocalhost on the host.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSubcommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse(err) })
	root.PersistentFlags().StringVar(&s.socket, "socket", control.DefaultSocket(), "`PATH` of the control socket")
	root.AddCommand(newRun(&s), newStatus(&s), newSetup(), newNetwork(), newInit(&s),
		newCloudInit(), newInstall(), newKeys(), newVersion())
	return root
}

// noSubcommand is a cobra argument check for a command that only has subcommands.
func noSubcommand(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misuse(fmt.Errorf("unknown command %q", args[0]))
	}
	return nil
}

// atMost is a cobra argument check whose failure is bad usage.
func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return misuse(fmt.Errorf("%s: unexpected argument %q", c.Name(), args[n]))
		}
		return nil
	}
}
