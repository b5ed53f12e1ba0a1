package libvirt

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// SetupOptions says what a domain should have.
type SetupOptions struct {
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

// PlanSetup says what the domain lacks, by name or UUID, and changes nothing. Errors wrap [ErrNoDomain], [ErrTransient],
// [ErrSubnetTaken] or [ErrSecondSeed].
func (c *Conn) PlanSetup(ctx context.Context, domain string, opts SetupOptions) (*Plan, error) {
	defer c.bound(ctx, refreshLimit)()
	p, def, err := c.newPlan(domain)
	if err != nil {
		return nil, err
	}
	if opts.Rum || def.madeByRum() {
		err = planForRum(p, def, opts)
	} else {
		err = c.planAll(p, def, opts)
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
		if err := c.notePending(p, opts); err != nil {
			return nil, err
		}
	}
	for _, port := range hostPorts(def) {
		p.Notes = append(p.Notes, "already forwarded to this domain: "+port.String())
	}
	networks, err := c.networkUses()
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
func (c *Conn) planAll(p *Plan, def *domainDef, opts SetupOptions) error {
	if err := c.planNICs(p, def, opts); err != nil {
		return err
	}
	if err := planAgent(p, def, opts); err != nil {
		return err
	}
	return planSeed(p, def, opts, func(d diskDef) string { return c.labelOf(p.dom, d) })
}

// notePending notes what the definition has and the running VM does not.
func (c *Conn) notePending(p *Plan, opts SetupOptions) error {
	text, err := c.lv.DomainGetXMLDesc(p.dom, 0)
	if err != nil {
		return fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	stored, err := parseGuest(p.before)
	if err != nil {
		return fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	live, err := parseGuest(text)
	if err != nil {
		return fmt.Errorf("domain %s: %w", p.Domain, err)
	}
	onHostOnly := func(n nic) bool { return opts.HostOnly != "" && n.network == opts.HostOnly }
	var pending []string
	if slices.ContainsFunc(stored.nics, onHostOnly) && !slices.ContainsFunc(live.nics, onHostOnly) {
		pending = append(pending, "a NIC on "+opts.HostOnly)
	}
	if live.cid == 0 && live.channel == "" {
		pending = append(pending, "a way to the guest agent")
	}
	if opts.Seed != "" && !slices.Contains(live.images, opts.Seed) {
		pending = append(pending, "the seed image")
	}
	if len(pending) > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s runs without %s: shut it down and start it again", p.Domain, strings.Join(pending, " and ")))
	}
	return nil
}

func (c *Conn) newPlan(domain string) (*Plan, *domainDef, error) {
	dom, err := c.lookup(domain)
	if err != nil {
		return nil, nil, err
	}
	p := &Plan{Domain: dom.Name, UUID: formatUUID(dom.UUID), dom: dom, running: dom.ID > 0}
	persistent, err := c.lv.DomainIsPersistent(dom)
	if err != nil {
		return nil, nil, fmt.Errorf("domain %s: %w", dom.Name, err)
	}
	if persistent == 0 {
		return nil, nil, advise(fmt.Errorf("%w: %s has no stored definition and vanishes when it stops", ErrTransient, dom.Name),
			"store its definition first with: virsh define FILE")
	}
	if p.before, err = c.definition(dom); err != nil {
		return nil, nil, err
	}
	p.after = p.before
	def, err := parseDomain(p.before)
	if err != nil {
		return nil, nil, fmt.Errorf("domain %s: %w", dom.Name, err)
	}
	p.Disk = def.firstDisk()
	return p, &def, nil
}

// definition reads the stored definition of a domain with its passwords: without them, storing it again would lose them.
func (c *Conn) definition(dom golibvirt.Domain) (string, error) {
	text, err := c.lv.DomainGetXMLDesc(dom, golibvirt.DomainXMLInactive|golibvirt.DomainXMLSecure)
	if err != nil {
		err = fmt.Errorf("definition of domain %s: %w", dom.Name, err)
		if isCode(err, golibvirt.ErrOperationDenied) {
			err = advise(err, "this connection may only read: use one that may change domains, such as "+systemURI+" as a user in the group libvirt")
		}
		return "", err
	}
	return text, nil
}

// planNICs sees to a NIC for the internet and one on the host-only network.
func (c *Conn) planNICs(p *Plan, def *domainDef, opts SetupOptions) error {
	if c.driver == sessionURI {
		if opts.HostOnly != "" {
			p.Notes = append(p.Notes, sessionURI+" has no bridge networks: no second NIC, so no fallback when the agent is away")
		}
		return nil
	}
	onHostOnly := func(i interfaceDef) bool { return opts.HostOnly != "" && i.Source.Network == opts.HostOnly }
	outside := slices.ContainsFunc(def.Interfaces, func(i interfaceDef) bool { return !onHostOnly(i) })
	hostOnly := slices.ContainsFunc(def.Interfaces, onHostOnly)
	if err := c.noteNetworks(p, def, opts); err != nil {
		return err
	}
	nics, err := c.allNICs()
	if err != nil {
		return err
	}
	inUse := map[string]bool{}
	for _, n := range nics {
		inUse[n.mac] = true
	}
	add := func(name, network string) error {
		mac := deviceMAC(cmp.Or(opts.MACsOf, p.UUID), name, inUse)
		inUse[mac] = true
		d, err := nicDevice(name, network, mac)
		p.attach = append(p.attach, d)
		return err
	}
	if !outside && opts.NAT != "" {
		ok, err := c.planNAT(p, opts.NAT)
		if err != nil {
			return err
		}
		if ok {
			if err := add("nat", opts.NAT); err != nil {
				return err
			}
		}
	}
	if opts.HostOnly == "" {
		return nil
	}
	if err := c.planHostOnly(p, opts); err != nil {
		return err
	}
	if hostOnly {
		return nil
	}
	return add("hostonly", opts.HostOnly)
}

// planNAT reports whether the network for the internet can be had; it is libvirt's own, so setup does not make it.
func (c *Conn) planNAT(p *Plan, name string) (bool, error) {
	n, _, err := c.network(name)
	if err != nil {
		return false, err
	}
	if !n.Exists {
		p.Notes = append(p.Notes, fmt.Sprintf("no NIC for the internet: libvirt has no network %q; "+
			"'virsh net-define /usr/share/libvirt/networks/default.xml' makes the usual one", name))
		return false, nil
	}
	p.start(n)
	return true, nil
}

func (c *Conn) planHostOnly(p *Plan, opts SetupOptions) error {
	n, _, err := c.network(opts.HostOnly)
	if err != nil {
		return err
	}
	if n.Exists {
		switch {
		case n.Forward != "":
			p.Notes = append(p.Notes, fmt.Sprintf("network %s forwards (%s): its guests reach more than this host", n.Name, n.Forward))
		case n.DHCP == "":
			p.Notes = append(p.Notes, fmt.Sprintf("network %s has no DHCP: give the guest an address by hand", n.Name))
		}
		if opts.Subnet.IsValid() && n.Subnet.IsValid() && n.Subnet.Masked() != opts.Subnet.Masked() {
			p.Notes = append(p.Notes, fmt.Sprintf("network %s exists with subnet %v; rum.toml says %v", n.Name, n.Subnet.Masked(), opts.Subnet))
		}
		p.start(n)
		return nil
	}
	if err := c.subnetFree(opts.Subnet); err != nil {
		return fmt.Errorf("network %s: %w", opts.HostOnly, err)
	}
	text, err := hostOnlyXML(opts.HostOnly, opts.Subnet)
	if err != nil {
		return err
	}
	p.networks = append(p.networks, networkStep{name: opts.HostOnly, define: text, start: true, autostart: true})
	p.Steps = append(p.Steps, fmt.Sprintf("make network %s: %v, host and guests only, DHCP, started with libvirt", opts.HostOnly, opts.Subnet.Masked()))
	p.Diff += diffText("network "+opts.HostOnly, "", text+"\n")
	return nil
}

// start plans what keeps a network from being there at the domain's next start.
func (p *Plan) start(n Network) {
	var what []string
	if !n.Active {
		what = append(what, "start it")
	}
	if !n.Autostart {
		what = append(what, "have it started with libvirt")
	}
	if len(what) > 0 {
		p.networks = append(p.networks, networkStep{name: n.Name, start: !n.Active, autostart: !n.Autostart})
		p.Steps = append(p.Steps, "network "+n.Name+": "+strings.Join(what, ", "))
	}
}

// planAgent sees to a way to the guest agent.
func planAgent(p *Plan, def *domainDef, opts SetupOptions) error {
	hasVsock := opts.HostHasVsock
	if hasVsock == nil {
		hasVsock = hostHasVsock
	}
	var d device
	var err error
	switch {
	case slices.ContainsFunc(def.Channels, isAgentChannel) && !hasVsock():
		return nil
	case !hasVsock():
		p.Notes = append(p.Notes, "this host has no "+vsockDevice+": the agents talk over a virtio-serial channel, which is slower; "+
			"'modprobe vhost_vsock' enables vsock")
		if len(def.VSocks) > 0 {
			p.Notes = append(p.Notes, "the domain has a vsock device and will not start on this host")
		}
		d, err = channelDevice()
	case len(def.VSocks) == 0:
		d, err = vsockDeviceXML()
	default:
		return nil
	}
	p.attach = append(p.attach, d)
	return err
}
