package setup

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// planNICs sees to a NIC for the internet and one on the host-only network.
func planNICs(c *libvirt.Conn, p *Plan, def *libvirt.Definition, opts Options) error {
	if c.Driver() == libvirt.SessionURI {
		if opts.HostOnly != "" {
			p.Notes = append(p.Notes, libvirt.SessionURI+" has no bridge networks: no second NIC, so no fallback when the agent is away")
		}
		return nil
	}
	onHostOnly := func(i libvirt.InterfaceDef) bool { return opts.HostOnly != "" && i.Source.Network == opts.HostOnly }
	outside := slices.ContainsFunc(def.Interfaces, func(i libvirt.InterfaceDef) bool { return !onHostOnly(i) })
	hostOnly := slices.ContainsFunc(def.Interfaces, onHostOnly)
	if err := noteNetworks(c, p, def, opts); err != nil {
		return err
	}
	nics, err := c.NICs()
	if err != nil {
		return err
	}
	inUse := map[string]bool{}
	for _, n := range nics {
		inUse[n.MAC] = true
	}
	add := func(name, network string) error {
		mac := deviceMAC(cmp.Or(opts.MACsOf, p.UUID), name, inUse)
		inUse[mac] = true
		d, err := nicDevice(name, network, mac)
		p.attach = append(p.attach, d)
		return err
	}
	if !outside && opts.NAT != "" {
		ok, err := planNAT(c, p, opts.NAT)
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
	if err := planHostOnly(c, p, opts); err != nil {
		return err
	}
	if hostOnly {
		return nil
	}
	return add("hostonly", opts.HostOnly)
}

// planNAT reports whether the network for the internet can be had; it is libvirt's own, so setup does not make it.
func planNAT(c *libvirt.Conn, p *Plan, name string) (bool, error) {
	n, err := c.Network(name)
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

func planHostOnly(c *libvirt.Conn, p *Plan, opts Options) error {
	n, err := c.Network(opts.HostOnly)
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
	if err := subnetFree(c, opts.Subnet); err != nil {
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
func (p *Plan) start(n libvirt.Network) {
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

// noteNetworks notes the networks of the domain's NICs without which it will not start. Setup starts those that it needs
// itself; the others are the user's.
func noteNetworks(c *libvirt.Conn, p *Plan, def *libvirt.Definition, opts Options) error {
	noted := map[string]bool{"": true, opts.HostOnly: true}
	for _, i := range def.Interfaces {
		name := i.Source.Network
		if noted[name] {
			continue
		}
		noted[name] = true
		n, err := c.Network(name)
		if err != nil {
			return err
		}
		note := func(format string, args ...any) { p.Notes = append(p.Notes, fmt.Sprintf(format, args...)) }
		switch {
		case !n.Exists:
			note("network %s does not exist, and %s does not start without it; see: virsh -c %s net-list --all", name, p.Domain, c.Driver())
		case !n.Active:
			note("network %s is not active, and %s does not start without it: virsh -c %s net-start %[1]s", name, p.Domain, c.Driver())
		}
		if n.Exists && !n.Active && !n.Autostart {
			note("network %s is not started with libvirt either: virsh -c %s net-autostart %[1]s", name, c.Driver())
		}
	}
	return nil
}
