package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
)

// Target is a running VM, and how to get into it as root.
type Target struct {
	// Name is the VM's.
	Name string
	// Project is what it is the VM of; nil for none.
	Project *projects.Project
	// Via is [ViaSSH] or [ViaQGA].
	Via string
	// To is what ssh is to go to instead of the name or, for a VM of a project, its address.
	To string
	// SSHOptions are given to ssh.
	SSHOptions []string
	// URI is the libvirt daemon that the VM is at; empty for the usual one.
	URI string
}

// Values of [Target.Via].
const (
	ViaSSH = "ssh"
	ViaQGA = "qga"
)

// way returns how scripts get into the VM. It says on stderr where that goes, if nobody named it.
func (t Target) way(ctx context.Context, stderr io.Writer) (way, error) {
	p := t.Project
	switch {
	case t.Via == ViaQGA && (t.To != "" || len(t.SSHOptions) > 0):
		return way{}, output.Misuse(errors.New("--via qga takes no --to and nothing for ssh"))
	case t.Via == ViaQGA:
		return overQGA(t.Name, t.URI, p), nil
	case t.Via != ViaSSH:
		return way{}, output.Misuse(fmt.Errorf("--via %q: want ssh or qga", t.Via))
	}
	to, err := t.destination(ctx)
	if err != nil {
		return way{}, err
	}
	if p == nil {
		return overSSH(to, t.SSHOptions, ""), nil
	}
	options, known, err := sshAsRum(p)
	if err != nil {
		return way{}, err
	}
	fmt.Fprintf(stderr, "%s is the VM of %s; going in as %s\n", output.Clean(t.Name), output.Clean(p.File.Path()), output.Clean(to))
	return overSSH(to, append(t.SSHOptions, options...), known), nil // ssh takes the first of two that differ
}

// way runs scripts in a VM, as root.
type way struct {
	to   string // for people
	hint string // what to do when a script fails
	// run runs a script. What it prints goes to stdout, and what there is to say meanwhile to stderr.
	run func(ctx context.Context, script []byte, stdout, stderr io.Writer) error
}

// do runs a script. Its error says that what was not done, unless it is about the way. Being stopped needs no advice.
func (w way) do(ctx context.Context, what string, script []byte, stdout, stderr io.Writer) error {
	err := w.run(ctx, script, stdout, stderr)
	p, known := errors.AsType[*output.Problem](err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case known:
		return p
	}
	return output.Advise(fmt.Errorf("%s %s: %w", what, w.to, err), w.hint)
}

// isOf returns an error for a domain that only has the name of a project's.
func isOf(dom libvirt.Domain, p *projects.Project) error {
	if p.Owns(dom.Name, cmp.Or(dom.Disk, projects.NoDisk)) {
		return nil
	}
	return output.Advise(fmt.Errorf("the domain %s is not the VM of %s: its disk is %s, and not in %s", dom.Name, p.File.Path(), cmp.Or(dom.Disk, projects.NoDisk), p.WorkDir),
		"if it is the one that you mean, name its address with --to USER@HOST; else give one of them another name")
}
