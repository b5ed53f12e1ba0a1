package main

import (
	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/install"
)

func newUpgrade(s *shared) *cobra.Command {
	o := install.Upgrade{Version: versionOrBuild()}
	c := &cobra.Command{
		Use:   "upgrade [VM...]",
		Short: "Replace guest agents over their links",
		Long: `Replace the guest agents of VMs by the one of this build, over the links that the agent
has with them, four at a time; without a VM, all that are outdated. It needs no login there,
and a key: a guest agent without one takes no orders, and is replaced with install.

The new agent has 30 s to be linked; else the VM puts the old one back by itself. One that
belongs to a package of the VM's system is left to that. With --agent an agent of this
version that is another binary is replaced as well. It exits 0 when each of them
has this version, 3 where no agent runs here, and 1 otherwise.`,
		Example: "  rum-host-agent upgrade\n  rum-host-agent upgrade dev --allow-downgrade",
		RunE: func(c *cobra.Command, args []string) error {
			o.VMs = args
			return o.Run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), s.socket)
		},
	}
	c.Flags().BoolVar(&o.Downgrade, "allow-downgrade", false, "by an older one too")
	c.Flags().StringArrayVar(&o.Files, "agent", nil, "a guest agent's `FILE`, of this build; may be repeated, once for each architecture\n(default the one beside rum-host-agent, or in ../lib/rum-agent)")
	c.Flags().BoolVar(&o.JSON, "json", false, "print JSON: of each VM vm, from, to and error")
	return c
}
