package main

import (
	"bytes"
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/cloudinit"
)

// installOptions are the flags of install.
type installOptions struct {
	reachOptions
	agents agentOptions
	uuid   string
}

func newInstall() *cobra.Command {
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
neither network nor login.`,
		Example: "  rum-host-agent install dev --to debian@192.168.50.101\n  rum-host-agent install dev -- -p 2222 -i ~/.ssh/lab\n  rum-host-agent install dev --via qga",
		Args:    vmAndSSHOptions,
		RunE: func(c *cobra.Command, args []string) error {
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
	return exactlyOne("VM")(c, args)
}

func (o *installOptions) run(ctx context.Context, name string, sshOptions []string, stdout, stderr io.Writer) error {
	seed := &cloudinit.Seed{Name: name}
	err := checkDomainName(name)
	if err != nil {
		return err
	}
	if seed.UUID, err = domainUUID(o.uuid); err != nil {
		return err
	}
	if seed.Agents, err = o.agents.read(); err != nil {
		return err
	}
	p := ownProject(name, stderr)
	owner := seed.UUID
	if p != nil && owner == "" {
		owner = keyOwner(name, p)
	}
	key, err := draftKey(ctx, name, owner, stderr)
	if err != nil {
		return err
	}
	defer key.release()
	seed.Key = key.Key
	way, err := o.way(ctx, name, p, sshOptions, stderr)
	if err != nil {
		return err
	}
	script, err := seed.Installer()
	if err != nil {
		return err
	}
	said := &sighting{w: stdout, of: []byte(cloudinit.KeyInPlace)}
	err = way.do(ctx, "install the agent in", script, said, stderr)
	if err != nil && !said.seen {
		return err
	}
	// What fails once the key is there leaves the guest with it.
	if kept := key.keep(); err == nil {
		err = kept
	}
	return err
}

// sighting passes on what is written, and notes whether a text was in it.
type sighting struct {
	w    io.Writer
	of   []byte
	last []byte // of what was written, less than the text
	seen bool
}

func (s *sighting) Write(p []byte) (int, error) {
	s.last = append(s.last, p...)
	s.seen = s.seen || bytes.Contains(s.last, s.of)
	s.last = s.last[max(0, len(s.last)-len(s.of)+1):]
	return s.w.Write(p)
}
