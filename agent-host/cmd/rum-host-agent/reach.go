package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/projects"
)

// reachOptions are the flags of the commands that run a script in a VM.
type reachOptions struct {
	to, via, uri string
}

// Values of --via.
const (
	viaSSH = "ssh"
	viaQGA = "qga"
)

func (o *reachOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.to, "to", "", "the `DESTINATION` that ssh understands, such as USER@HOST (default the VM's name)")
	c.Flags().StringVar(&o.via, "via", viaSSH, "`ssh`, or qga for the QEMU guest agent")
	c.Flags().StringVar(&o.uri, "libvirt", "", "libvirt `URI`; when not given that of the project, else $LIBVIRT_DEFAULT_URI, else the\nsystem's or the user's daemon")
}

// way runs scripts in a VM, as root.
type way struct {
	to   string // for people
	hint string // what to do when a script fails
	// run runs a script. What it prints goes to stdout, and what there is to say meanwhile to stderr.
	run func(ctx context.Context, script []byte, stdout, stderr io.Writer) error
}

// way returns how scripts get into a VM; p is the project that it is of, nil for none.
func (o *reachOptions) way(ctx context.Context, name string, p *projects.Project, sshOptions []string, stderr io.Writer) (way, error) {
	switch {
	case o.via == viaQGA && (o.to != "" || len(sshOptions) > 0):
		return way{}, misuse(errors.New("--via qga takes no --to and nothing for ssh"))
	case o.via == viaQGA:
		return overQGA(name, daemonFor(o.uri, p), p), nil
	case o.via != viaSSH:
		return way{}, misuse(fmt.Errorf("--via %q: want ssh or qga", o.via))
	}
	to, err := o.destination(ctx, name, p)
	if err != nil {
		return way{}, err
	}
	if p == nil {
		return overSSH(to, sshOptions, ""), nil
	}
	options, known, err := sshAsRum(p)
	if err != nil {
		return way{}, err
	}
	fmt.Fprintf(stderr, "%s is the VM of %s; going in as %s\n", clean(name), clean(p.File.Path()), clean(to))
	return overSSH(to, append(sshOptions, options...), known), nil // ssh takes the first of two that differ
}

// do runs a script. Its error says that what was not done, unless it is about the way. Being stopped needs no advice.
func (w way) do(ctx context.Context, what string, script []byte, stdout, stderr io.Writer) error {
	err := w.run(ctx, script, stdout, stderr)
	p, known := errors.AsType[*problem](err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case known:
		return p
	}
	return advise(fmt.Errorf("%s %s: %w", what, w.to, err), w.hint)
}
