package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/cloudinit"
)

// receive runs the installing script from standard input, as root: it needs to be a file, because its last part is an
// archive that it reads from itself. The file has the key in it, and goes whatever happens.
const receive = `set -eu
umask 077
script=$(mktemp)
trap 'rm -f "$script"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$script"
if [ "$(id -u)" = 0 ]; then sh "$script"; else sudo -n sh "$script"; fi`

// installOptions are the flags of install.
type installOptions struct {
	agents agentOptions
	to     string
	uuid   string
}

func newInstall() *cobra.Command {
	var o installOptions
	c := &cobra.Command{
		Use:   "install VM [--to DESTINATION] [-- SSH-OPTION...]",
		Short: "Install the guest agent in a running VM, over ssh",
		Long: `Install the guest agent, its key and its service in a VM that runs already. It may be
run again at any time, for instance with a newer agent: what is there already is
left alone.

It needs ssh to the VM, as root or as a user who may use sudo without a password.
What follows -- is given to ssh. Without --to, a VM that rum made for this user is
reached as rum does it: at an address that its domain has, with the project's key
and user. Its host key is remembered from the first time on.`,
		Example: "  rum-host-agent install dev --to debian@192.168.50.101\n  rum-host-agent install dev -- -p 2222 -i ~/.ssh/lab",
		Args: func(c *cobra.Command, args []string) error {
			if n := c.ArgsLenAtDash(); n >= 0 {
				args = args[:n]
			}
			return exactlyOne("VM")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), args[0], args[1:], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&o.to, "to", "", "the `DESTINATION` that ssh understands, such as USER@HOST (default the VM's name)")
	c.Flags().StringVar(&o.uuid, "uuid", "", "the libvirt domain's `UUID`: the key is then for no other")
	o.agents.flags(c)
	return c
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
	to, owner := o.to, seed.UUID
	if p := ownProject(name); p != nil && to == "" {
		var options []string
		if to, options, err = reachAsRum(ctx, p); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "%s is the VM of %s; going in as %s\n", clean(name), clean(p.File.Path()), clean(to))
		sshOptions = append(sshOptions, options...) // ssh takes the first of two that differ
		owner = keyOwner(name, p)
	}
	key, err := draftKey(name, owner)
	if err != nil {
		return err
	}
	seed.Key = key.Key
	script, err := seed.Installer()
	if err != nil {
		return err
	}
	if to == "" {
		to = name
	}
	// The login shell there may be one of another family.
	command := "exec sh -c '" + strings.ReplaceAll(receive, "'", `'\''`) + "'"
	args := append(append([]string{"-T"}, sshOptions...), "--", to, command)
	ssh := exec.CommandContext(ctx, "ssh", args...)
	ssh.Stdin, ssh.Stdout, ssh.Stderr = bytes.NewReader(script), stdout, stderr
	ssh.Cancel = func() error { return ssh.Process.Signal(syscall.SIGTERM) }
	ssh.WaitDelay = 5 * time.Second
	err = ssh.Run()
	switch exit, ok := errors.AsType[*exec.ExitError](err); {
	case ctx.Err() != nil:
		return ctx.Err()
	case ok && exit.ExitCode() == 255: // what ssh itself returns when it fails
		return advise(fmt.Errorf("cannot reach %s with ssh", to), "try it by hand with: ssh "+to+" true, and name the VM's address with --to USER@HOST")
	case err != nil:
		return advise(fmt.Errorf("install the agent in %s: %w", to, err), "what went wrong is said above; the user there has to be root or may use sudo without a password")
	}
	return key.keep()
}
