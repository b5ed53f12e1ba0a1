package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/doctor"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/remote/there"
)

func newDoctor(s *shared) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor [VM]",
		Short: "Look at everything between you and a forward that works",
		Long: `Look at everything between you and a forward that works: modules, devices and who may
open them, kernel settings, loopback, libvirt and its networks, the agent, rum.toml, keys,
VMs and their ports. It changes nothing, and says what to do, as a command where there is
one. It works as well where no agent runs, and says so.

For a VM of another host, HOST/VM, it also looks at what the VM needs there, over ssh.

It exits 0 where all is well, 1 where something is wrong, and 2 on bad usage.`,
		Example: "  rum-host-agent doctor\n  rum-host-agent doctor dev --json",
		Args:    atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			d := doctor.Doctor{Socket: s.socket, Version: versionOrBuild()}
			if len(args) == 1 {
				d.VM = args[0]
				t, remote, err := there.Find(c.Context(), s.socket, d.VM)
				if err != nil {
					return err
				}
				if remote {
					d.Host, d.There = t.Address.Name(), t.Doctor
				}
			}
			look := output.Look{Colour: output.Colours(os.Stdout), Width: output.Width(os.Stdout)}
			return d.Report(c.Context(), c.OutOrStdout(), asJSON, output.UTF8(), look)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
