package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/setup"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
)

// natNetwork is the network for the internet that libvirt comes with.
const natNetwork = "default"

// libvirtOptions are the flags of the subcommands that talk to libvirt.
type libvirtOptions struct {
	uri    string
	config string
}

func (o *libvirtOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.uri, "libvirt", "", "libvirt `URI`; $LIBVIRT_DEFAULT_URI, else the system's or the user's daemon when not given")
	configFlag(c, &o.config)
}

// open connects and reads what the network should be.
func (o *libvirtOptions) open(ctx context.Context) (*libvirt.Conn, config.Network, error) {
	file, err := userconfig.Open(o.config, "")
	if err != nil {
		return nil, config.Network{}, err
	}
	conn, err := libvirt.Open(ctx, o.uri)
	return conn, file.Current().Network, output.Hinted(err, libvirt.Hint(err))
}

type setupOptions struct {
	libvirtOptions
	seed, keep   string
	dryRun, undo bool
}

// Values of --keep.
const (
	keepYes = "yes"
	keepNo  = "no"
)

func newSetup(s *shared) *cobra.Command {
	var o setupOptions
	c := &cobra.Command{
		Use:   "setup DOMAIN",
		Short: "Give a libvirt domain vsock and a host-only network",
		Long: `Give a libvirt domain what rum-host-agent needs: a vsock device, or a
virtio-serial channel where the host has no vhost_vsock; a NIC on the host-only
network, which is made if there is none; and a NIC for the internet if the
domain has no other. What is there already stays as it is. Devices are plugged
into a running VM where that works.

What was added is remembered: where another program defines the domain anew, and so
takes it away, rum-host-agent run puts it back. --keep no ends that.

A domain that rum made has vsock already and needs nothing.

With --seed it also gets the image that cloudinit wrote, as a read-only disk, and
the key of its name is from then on for this domain alone.

For a VM of another host, HOST/VM, it is run there, over ssh.`,
		Example: "  rum-host-agent setup dev --dry-run\n  rum-host-agent setup dev --seed dev-seed.iso\n  rum-host-agent setup --undo dev",
		Args:    exactlyOne("DOMAIN"),
		RunE: func(c *cobra.Command, args []string) error {
			if _, remote, err := s.there(c, args[0], nil, "seed", "config"); remote || err != nil {
				return err
			}
			return o.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), args[0])
		},
	}
	o.flags(c)
	c.Flags().StringVar(&o.seed, "seed", "", "attach the seed image in `FILE`, which cloudinit wrote; another one takes the place of the\none before")
	c.Flags().StringVar(&o.keep, "keep", keepYes, "`yes` to have what was added put back when the domain is defined anew, no to forget it")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would change, and change nothing")
	c.Flags().BoolVar(&o.undo, "undo", false, "remove what setup added, and nothing else")
	return c
}

// exactlyOne is a cobra argument check whose failure is bad usage.
func exactlyOne(what ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != len(what) {
			return output.Misuse(fmt.Errorf("%s takes one %s", c.Name(), strings.Join(what, " and one ")))
		}
		return nil
	}
}

func (o *setupOptions) run(ctx context.Context, w, stderr io.Writer, domain string) error {
	seed, err := o.seedFile()
	if err != nil {
		return err
	}
	if o.keep != keepYes && o.keep != keepNo {
		return output.Misuse(fmt.Errorf("--keep %q: want yes or no", o.keep))
	}
	p := userconfig.ProjectOf(domain, stderr)
	o.uri = userconfig.DaemonFor(o.uri, p)
	conn, network, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var plan *setup.Plan
	var opts setup.Options
	if o.undo {
		plan, err = setup.NewUndo(ctx, conn, domain, network.HostOnly)
	} else {
		opts = setup.Options{HostOnly: network.HostOnly, Subnet: network.Subnet, Seed: seed, Rum: p != nil, MACsOf: o.macsOf(domain)}
		if network.Mode == config.ModeNAT {
			opts.NAT = natNetwork
		}
		plan, err = setup.NewPlan(ctx, conn, domain, opts)
	}
	if errors.Is(err, libvirt.ErrNoDomain) && o.keep == keepNo && !o.dryRun {
		if was, err := o.forget(domain); was || err != nil {
			fmt.Fprintf(w, "%s: forgotten\n", output.Clean(domain))
			return err
		}
	}
	if err != nil {
		return output.Hinted(err, libvirt.Hint(err))
	}
	switch {
	case o.keep == keepNo:
		plan.Notes = append(plan.Notes, "nothing is put back when another program defines "+plan.Domain+" anew")
	case !o.undo && !plan.Empty():
		plan.Notes = append(plan.Notes, "rum-host-agent run puts it back when another program defines "+plan.Domain+" anew")
	}
	bind := func() error { return nil }
	if seed != "" {
		if bind, err = bindKey(plan); err != nil {
			return err
		}
	}
	if o.dryRun {
		return printPlan(w, plan)
	}
	if plan.Empty() {
		return errors.Join(bind(), o.remember(plan, opts), printPlan(w, plan))
	}
	result, err := setup.Apply(ctx, conn, plan)
	if err != nil {
		return output.Hinted(err, libvirt.Hint(err))
	}
	return errors.Join(bind(), o.remember(plan, opts), printResult(w, plan, result))
}

// seedFile returns the absolute path of the seed image, because libvirt has another working directory; empty for none.
func (o *setupOptions) seedFile() (string, error) {
	if o.seed == "" {
		return "", nil
	}
	if o.undo {
		return "", output.Misuse(errors.New("--undo removes the seed image too, and takes no --seed"))
	}
	if err := setup.CheckSeed(o.seed); err != nil {
		return "", output.Advise(fmt.Errorf("seed image: %w", err), "write one with: rum-host-agent cloudinit NAME -o FILE")
	}
	return filepath.Abs(o.seed)
}

// bindKey returns what makes the key of the domain's name one for this domain alone, to be done when the domain has the
// image. It makes no key: the guest would not have it.
func bindKey(plan *setup.Plan) (keep func() error, err error) {
	store, err := keys.Default()
	if err != nil {
		return nil, err
	}
	key, err := store.Lookup(plan.Domain, plan.UUID)
	if errors.Is(err, keys.ErrNotFound) {
		plan.Notes = append(plan.Notes, fmt.Sprintf("%s has no key for %s: the image was made by another user, or for another name; "+
			"write one for it with: rum-host-agent cloudinit %[2]s -o FILE", store.Dir, plan.Domain))
		return func() error { return nil }, nil
	}
	advise := func(err error) error {
		return output.Hinted(err, keys.Hint(output.Clean(plan.Domain), err))
	}
	return func() error { return advise(store.Keep(plan.Domain, plan.UUID, key)) }, advise(err)
}

// printPlan writes what would be done.
func printPlan(w io.Writer, plan *setup.Plan) error {
	var b strings.Builder
	if plan.Empty() {
		fmt.Fprintf(&b, "%s: nothing to do\n", output.Clean(plan.Domain))
	}
	for _, step := range plan.Steps {
		b.WriteString("would " + output.CleanError(step) + "\n")
	}
	writeNotes(&b, plan.Notes)
	writeDiff(&b, plan.Diff)
	_, err := io.WriteString(w, b.String())
	return err
}

// printResult writes what was done.
func printResult(w io.Writer, plan *setup.Plan, result setup.Result) error {
	var b strings.Builder
	for _, step := range plan.Steps {
		b.WriteString("done: " + output.CleanError(step) + "\n")
	}
	for _, reason := range result.Restart {
		b.WriteString("after the next start only: " + output.CleanError(reason) + "\n")
	}
	if len(result.Restart) > 0 {
		fmt.Fprintf(&b, "shut %[1]s down and start it again: virsh shutdown %[1]s; virsh start %[1]s\n", output.Clean(plan.Domain))
	}
	writeNotes(&b, plan.Notes)
	writeDiff(&b, result.Diff)
	_, err := io.WriteString(w, b.String())
	return err
}

func writeNotes(b *strings.Builder, notes []string) {
	for _, note := range notes {
		b.WriteString("note: " + output.CleanError(note) + "\n")
	}
}

func writeDiff(b *strings.Builder, diff string) {
	if diff == "" {
		return
	}
	b.WriteByte('\n')
	for line := range strings.Lines(diff) {
		b.WriteString(output.Clean(strings.TrimSuffix(line, "\n")) + "\n")
	}
}
