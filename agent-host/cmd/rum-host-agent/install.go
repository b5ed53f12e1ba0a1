package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/vmflag"
	"github.com/rum-vm/rum-agent/cloudinit"
)

// installOptions are the flags of install.
type installOptions struct {
	reachOptions
	agents agentOptions
	uuid   string
}

func newInstall(s *shared) *cobra.Command {
	var o installOptions
	c := &cobra.Command{
		Use:   "install VM [--to DESTINATION | --via qga] [-- SSH-OPTION...]",
		Short: "Install the guest agent in a running VM, over ssh",
		Long: `Install the guest agent, its key and its service in a VM that runs already. It may be
run again at any time, for instance with a newer agent: what is there already is
left alone.

It needs ssh to the VM, as root or as a user who may use sudo without a password.
What follows -- is given to ssh. A VM that rum made for this user is reached as rum
does it: at an address that its domain has on any network of this host, with the
project's key and user. Its host key is remembered from the first time on, and
another one refused.

With --via qga it goes through libvirt and the QEMU guest agent instead, which needs
neither network nor login.

For a VM of another host, HOST/VM, it is run there, over ssh; the key is made there.`,
		Example: "  rum-host-agent install dev --to debian@192.168.50.101\n  rum-host-agent install dev -- -p 2222 -i ~/.ssh/lab\n  rum-host-agent install dev --via qga",
		Args:    vmAndSSHOptions,
		RunE: func(c *cobra.Command, args []string) error {
			t, remote, err := s.there(c, args[0], args[1:], "agent")
			if remote && err == nil {
				_, err = fmt.Fprintf(c.ErrOrStderr(), "Its key is on %s; have it here too with:\n%s\n", t.Address.Name(), t.ImportKey())
			}
			if remote || err != nil {
				return err
			}
			return o.run(c.Context(), args[0], args[1:], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.reachOptions.flags(c)
	c.Flags().StringVar(&o.uuid, "uuid", "", "the libvirt domain's `UUID`: the key is then for no other")
	o.agents.flags(c)
	return c
}

// vmAndSSHOptions is a cobra argument check for one VM, and behind -- what is for ssh.
func vmAndSSHOptions(c *cobra.Command, args []string) error {
	if n := c.ArgsLenAtDash(); n >= 0 {
		args = args[:n]
	}
	err := exactlyOne("VM")(c, args)
	if len(args) > 1 {
		err = output.Misuse(output.Advise(errors.New(c.Name()+" takes one VM"), "put -- before what is for ssh, as in: "+c.CommandPath()+" "+args[0]+" -- "+strings.Join(args[1:], " ")))
	}
	return err
}

func (o *installOptions) run(ctx context.Context, name string, sshOptions []string, stdout, stderr io.Writer) error {
	seed := &cloudinit.Seed{Name: name}
	err := vmflag.CheckDomain(name)
	if err != nil {
		return err
	}
	if seed.UUID, err = domainUUID(o.uuid); err != nil {
		return err
	}
	if seed.Agents, err = o.agents.read(); err != nil {
		return err
	}
	return o.target(name, sshOptions, stderr).Install(ctx, seed, stdout, stderr)
}
