package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/install"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
)

// reachOptions are the flags of the commands that run a script in a VM.
type reachOptions struct {
	to, via, uri string
}

func (o *reachOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.to, "to", "", "the `DESTINATION` that ssh understands, such as USER@HOST (default the VM's name)")
	c.Flags().StringVar(&o.via, "via", install.ViaSSH, "`ssh`, or qga for the QEMU guest agent")
	c.Flags().StringVar(&o.uri, "libvirt", "", "libvirt `URI`; when not given that of the project, else $LIBVIRT_DEFAULT_URI, else the\nsystem's or the user's daemon")
}

// target is the VM of that name, of this user's project if one has it.
func (o *reachOptions) target(name string, sshOptions []string, stderr io.Writer) install.Target {
	p := userconfig.ProjectOf(name, stderr)
	return install.Target{Name: name, Project: p, Via: o.via, To: o.to, SSHOptions: sshOptions, URI: userconfig.DaemonFor(o.uri, p)}
}
