package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/proxy"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
)

func newSSH(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh VM [-- COMMAND...]",
		Short: "Log in to a VM with ssh, through the agent that runs",
		Long: `Log in to a VM with this system's ssh, through the agent that runs: no network is
needed in between, and no port of this host. The exit status is that of ssh.
Where the VM announces no port 22, it is the server that systemd has at vsock port 22.

The VM of a project of rum's is entered with the project's user and key; any other as
~/.ssh/config says of Host rum-VM, or else as this user. Its host key is remembered
from the first time on, and another one refused, in a file of its own: VMs are made
anew more often than other hosts. What else ssh can do, it does with ssh-config.`,
		Example: "  rum-host-agent ssh dev\n  rum-host-agent ssh dev -- uname -a",
		Args:    vmAndSSHOptions,
		RunE: func(c *cobra.Command, args []string) error {
			return sshOf(s, c.ErrOrStderr()).Run(c.Context(), args[0], args[1:])
		},
	}
}

func newSSHConfig(s *shared) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh-config [VM]",
		Short: "Print what ~/.ssh/config needs for VMs",
		Long: `Print what ~/.ssh/config needs, so that ssh, scp, rsync, git and editors reach a VM as
rum-VM through the agent that runs: of one VM, or of all that the agent serves.`,
		Example: "  rum-host-agent ssh-config >~/.ssh/rum; ssh -F ~/.ssh/rum rum-dev\n  rum-host-agent ssh-config dev >>~/.ssh/config; rsync -a . rum-dev:src",
		Args:    atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			return sshOf(s, c.ErrOrStderr()).Config(c.Context(), c.OutOrStdout(), append(args, "")[0])
		},
	}
}

func sshOf(s *shared, stderr io.Writer) *proxy.SSH {
	return &proxy.SSH{Socket: s.socket, Project: func(vm string) *projects.Project { return userconfig.ProjectOf(vm, stderr) }}
}
