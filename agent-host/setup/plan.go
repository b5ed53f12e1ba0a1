package setup

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// Options says what a domain should have.
type Options struct {
	// HostOnly is the name of the host-only network; empty for no second NIC.
	HostOnly string
	// Subnet is used when the network does not exist yet.
	Subnet netip.Prefix
	// NAT is the network for a domain that has no NIC beside the host-only one; empty to leave it without.
	NAT string
	// Seed is the absolute path of a seed image to give the domain as a read-only disk; empty for none.
	Seed string
	// Rum says that rum made the domain, which is else known by its disks and networks. It gets what it takes to reach
	// its agent, if anything, and no seed.
	Rum bool
	// MACsOf is the UUID that the MAC addresses of added NICs come from; empty for the domain's.
	MACsOf string
	// HostHasVsock says whether guests can have vsock here; nil asks the kernel.
	HostHasVsock func() bool
}

// Plan is what setup, or its undoing, would change. It is good until the domain or the networks change.
type Plan struct {
	// Domain is the domain's name, and UUID its UUID in the hyphenated lower-case form.
	Domain, UUID string
	// Disk is where the domain's first disk is, setup's own apart; empty for none.
	Disk string
	// Steps say in order what will be done; none when there is nothing to do.
	Steps []string
	// Diff is a unified diff of the definitions that change, passwords left out.
	Diff string
	// Notes say what is worth knowing and stays as it is.
	Notes []string

	dom           golibvirt.Domain
	running       bool
	before, after string
	networks      []networkStep
	attach        []device
	update        []device // take the place of those with their alias
	detach        []string // aliases
}

// Empty reports whether everything is as it should be.
func (p *Plan) Empty() bool { return len(p.Steps) == 0 }

// Ours reports whether the domain has devices of setup's once the plan is carried out.
func (p *Plan) Ours() bool {
	_, aliases, err := removeAdded(p.after)
	return err == nil && len(aliases) > 0
}

// networkStep brings a network to where it is needed, or removes it.
type networkStep struct {
	name             string
	define           string // XML; empty if it is defined
	start, autostart bool
	remove           bool
}

// NewPlan says what the domain lacks, by name or UUID, and changes nothing. Errors wrap [libvirt.ErrNoDomain], [ErrTransient],
// [ErrSubnetTaken] or [ErrSecondSeed].
func NewPlan(ctx context.Context, c *libvirt.Conn, domain string, opts Options) (*Plan, error) {
	defer c.Bound(ctx, planLimit)()
	p, def, err := newPlan(c, domain)
	if err != nil {
		return nil, err
	}
	if opts.Rum || madeByRum(def) {
		err = planForRum(p, def, opts)
	} else {
		err = planAll(c, p, def, opts)
	}
	if err != nil {
		return nil, err
	}
	if p.after, err = replaceDevices(p.before, p.update); err == nil {
		p.after, err = insertDevices(p.after, p.attach)
	}
	if err != nil {
		return nil, fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	for _, d := range p.attach {
		p.Steps = append(p.Steps, "add to "+p.Domain+": "+d.what)
	}
	for _, d := range p.update {
		p.Steps = append(p.Steps, "change in "+p.Domain+": "+d.what)
	}
	p.Diff += diffText("domain "+p.Domain, p.before, p.after)
	if p.running && len(p.attach)+len(p.update) == 0 {
		if err := notePending(c, p, def, opts); err != nil {
			return nil, err
		}
	}
	for _, port := range def.HostPorts() {
		p.Notes = append(p.Notes, "already forwarded to this domain: "+port.String())
	}
	networks, err := networkUses(c)
	if err != nil {
		return nil, err
	}
	for _, port := range natPorts(func(a netip.Addr) bool { _, ok := containing(a, networks); return ok }) {
		p.Notes = append(p.Notes, "already forwarded to a guest: "+port.String())
	}
	p.Notes = append(p.Notes, dnatNotes(hooksDir)...)
	return p, nil
}

// planAll sees to everything that a domain should have.
func planAll(c *libvirt.Conn, p *Plan, def *libvirt.Definition, opts Options) error {
	if err := planNICs(c, p, def, opts); err != nil {
		return err
	}
	if err := planAgent(p, def, opts); err != nil {
		return err
	}
	return planSeed(p, def, opts, func(d libvirt.DiskDef) string { return labelOf(c, p.dom, d) })
}

// notePending notes what the definition has and the running VM does not.
func notePending(c *libvirt.Conn, p *Plan, stored *libvirt.Definition, opts Options) error {
	text, err := c.Client().DomainGetXMLDesc(p.dom, 0)
	if err != nil {
		return fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	live, err := libvirt.ParseDefinition(text)
	if err != nil {
		return fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	onHostOnly := func(n libvirt.NIC) bool { return opts.HostOnly != "" && n.Network == opts.HostOnly }
	var pending []string
	if slices.ContainsFunc(stored.NICs(), onHostOnly) && !slices.ContainsFunc(live.NICs(), onHostOnly) {
		pending = append(pending, "a NIC on "+opts.HostOnly)
	}
	if live.CID() == 0 && live.AgentSocket() == "" {
		pending = append(pending, "a way to the guest agent")
	}
	if opts.Seed != "" && !slices.Contains(live.Images(), opts.Seed) {
		pending = append(pending, "the seed image")
	}
	if len(pending) > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s runs without %s: shut it down and start it again", p.Domain, strings.Join(pending, " and ")))
	}
	return nil
}

func newPlan(c *libvirt.Conn, domain string) (*Plan, *libvirt.Definition, error) {
	dom, err := c.Lookup(domain)
	if err != nil {
		return nil, nil, err
	}
	p := &Plan{Domain: dom.Name, UUID: libvirt.FormatUUID(dom.UUID), dom: dom, running: dom.ID > 0}
	persistent, err := c.Client().DomainIsPersistent(dom)
	if err != nil {
		return nil, nil, fmt.Errorf("domain %s: %w", dom.Name, err)
	}
	if persistent == 0 {
		return nil, nil, libvirt.Advise(fmt.Errorf("%w: %s has no stored definition and vanishes when it stops", ErrTransient, dom.Name),
			"store its definition first with: virsh define FILE")
	}
	if p.before, err = definition(c, dom); err != nil {
		return nil, nil, err
	}
	p.after = p.before
	def, err := libvirt.ParseDefinition(p.before)
	if err != nil {
		return nil, nil, fmt.Errorf("domain %s: %w", dom.Name, err)
	}
	p.Disk = def.FirstDisk()
	return p, def, nil
}

// definition reads the stored definition of a domain with its passwords: without them, storing it again would lose them.
func definition(c *libvirt.Conn, dom golibvirt.Domain) (string, error) {
	text, err := c.Client().DomainGetXMLDesc(dom, golibvirt.DomainXMLInactive|golibvirt.DomainXMLSecure)
	if err != nil {
		err = fmt.Errorf("definition of domain %s: %w", dom.Name, err)
		if libvirt.IsCode(err, golibvirt.ErrOperationDenied) {
			err = libvirt.Advise(err, "this connection may only read: use one that may change domains, such as "+libvirt.SystemURI+" as a user in the group libvirt")
		}
		return "", err
	}
	return text, nil
}

// planAgent sees to a way to the guest agent.
func planAgent(p *Plan, def *libvirt.Definition, opts Options) error {
	hasVsock := opts.HostHasVsock
	if hasVsock == nil {
		hasVsock = libvirt.HostHasVsock
	}
	var d device
	var err error
	switch {
	case def.HasAgentChannel() && !hasVsock():
		return nil
	case !hasVsock():
		p.Notes = append(p.Notes, "this host has no "+libvirt.VsockDevice+": the agents talk over a virtio-serial channel, which is slower; "+
			"'modprobe vhost_vsock' enables vsock")
		if def.HasVsock() {
			p.Notes = append(p.Notes, "the domain has a vsock device and will not start on this host")
		}
		d, err = channelDevice()
	case !def.HasVsock():
		d, err = vsockDeviceXML()
	default:
		return nil
	}
	p.attach = append(p.attach, d)
	return err
}
