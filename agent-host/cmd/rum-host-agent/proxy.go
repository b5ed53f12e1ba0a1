package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/proxy"
)

func newProxy(s *shared) *cobra.Command {
	var fdpass bool
	c := &cobra.Command{
		Use:   "proxy VM PORT",
		Short: "Join standard input and output to a port in a VM",
		Long: `Join standard input and output to a TCP port in a VM, through the agent that runs. No
port of this host is needed, and rules that keep the port in the VM do not count:
who may ask this agent has it, and nobody else. With --fdpass the connection is the
receiver's, if the way to the VM allows that, and goes on without this agent.

It exits 0 when both directions have ended, 1 when the connection was reset, could
not be made or was interrupted, 2 on bad usage, and 3 where no agent runs.`,
		Example: "  rum-host-agent proxy dev 5432\n  ssh -o ProxyCommand='rum-host-agent proxy --fdpass dev %p' -o ProxyUseFdpass=yes dev",
		Args:    exactlyOne("VM", "PORT"),
		RunE: func(c *cobra.Command, args []string) error {
			p := proxy.Port{Socket: s.socket, VM: args[0]}
			if err := p.Parse(args[1]); err != nil {
				return err
			}
			if fdpass {
				return p.HandOver(c.Context(), os.Stdout)
			}
			return p.Join(c.Context(), os.Stdin, os.Stdout)
		},
	}
	c.Flags().BoolVar(&fdpass, "fdpass", false, "hand the connection over to the unix socket at standard output, and exit")
	return c
}
