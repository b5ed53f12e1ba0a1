package libvirt

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// setupNS is the namespace of what setup notes in libvirt's metadata: on a network that setup made it, on a domain which
// controllers libvirt had to add.
const setupNS = "https://github.com/rum-vm/rum-agent/setup/1"

// Network is the state of the host-only network.
type Network struct {
	Name string
	// Exists is false when libvirt has no network of that name; the fields below are then zero.
	Exists, Active, Autostart bool
	// Ours: setup made it.
	Ours   bool
	Bridge string
	// Forward is the forward mode; empty for a host-only network.
	Forward string
	// Subnet holds the host's own address in it.
	Subnet netip.Prefix
	// DHCP is the range that leases come from, such as "192.168.50.100-192.168.50.254"; empty without DHCP.
	DHCP   string
	Leases []Lease
}

// Lease is an address that the network's DHCP server gave out.
type Lease struct {
	MAC, Hostname string
	IP            netip.Addr
	Expires       time.Time
	// Domain is the domain with that MAC, running or not; empty if none has it.
	Domain string
}

// NetworkStatus reports on the network of that name, with its leases by address.
func (c *Conn) NetworkStatus(ctx context.Context, name string) (Network, error) {
	defer c.bound(ctx, refreshLimit)()
	n, dom, err := c.network(name)
	if err != nil || !n.Exists {
		return n, err
	}
	owners, err := c.macOwners()
	if err != nil {
		return n, err
	}
	leases, _, err := c.lv.NetworkGetDhcpLeases(dom, nil, 1, 0)
	if err != nil && n.Active {
		return n, fmt.Errorf("leases of network %s: %w", name, err)
	}
	for _, l := range leases {
		lease := Lease{Expires: time.Unix(l.Expirytime, 0)}
		lease.IP, _ = netip.ParseAddr(l.Ipaddr)
		if len(l.Mac) > 0 {
			lease.MAC = strings.ToLower(l.Mac[0])
			lease.Domain = owners[lease.MAC]
		}
		if len(l.Hostname) > 0 {
			lease.Hostname = l.Hostname[0]
		}
		n.Leases = append(n.Leases, lease)
	}
	slices.SortFunc(n.Leases, func(a, b Lease) int { return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.MAC, b.MAC)) })
	return n, nil
}

// network reads the definition and state of a network, without its leases.
func (c *Conn) network(name string) (Network, golibvirt.Network, error) {
	n := Network{Name: name}
	ref, err := c.lv.NetworkLookupByName(name)
	if isCode(err, golibvirt.ErrNoNetwork) {
		return n, ref, nil
	}
	if err != nil {
		return n, ref, fmt.Errorf("network %s: %w", name, err)
	}
	text, err := c.lv.NetworkGetXMLDesc(ref, 0)
	if err != nil {
		return n, ref, fmt.Errorf("network %s: %w", name, err)
	}
	if err := n.read(text); err != nil {
		return n, ref, fmt.Errorf("network %s: %w", name, err)
	}
	active, err := c.lv.NetworkIsActive(ref)
	if err != nil {
		return n, ref, fmt.Errorf("network %s: %w", name, err)
	}
	autostart, err := c.lv.NetworkGetAutostart(ref)
	if err != nil {
		return n, ref, fmt.Errorf("network %s: %w", name, err)
	}
	n.Exists, n.Active, n.Autostart = true, active == 1, autostart == 1
	return n, ref, nil
}

func (n *Network) read(text string) error {
	def, err := parseNetwork(text)
	if err != nil {
		return err
	}
	n.Ours = strings.Contains(def.Metadata.XML, setupNS)
	n.Bridge = def.Bridge.Name
	if def.Forward != nil {
		n.Forward = cmp.Or(def.Forward.Mode, "nat") // libvirt's default mode
	}
	for _, ip := range def.IPs {
		prefix, ok := prefixOf(ip)
		if !ok || n.Subnet.IsValid() {
			continue
		}
		n.Subnet = prefix
		if len(ip.Ranges) > 0 {
			n.DHCP = ip.Ranges[0].Start + "-" + ip.Ranges[0].End
		}
	}
	return nil
}

// prefixOf reads the IPv4 address and size of a network's <ip> element.
func prefixOf(ip ipDef) (netip.Prefix, bool) {
	addr, err := netip.ParseAddr(ip.Address)
	if err != nil || !addr.Is4() {
		return netip.Prefix{}, false
	}
	bits, _ := strconv.Atoi(ip.Prefix)
	if mask, err := netip.ParseAddr(ip.Netmask); err == nil && mask.Is4() {
		for bits = 0; bits < 32 && number(mask)&(1<<(31-bits)) != 0; bits++ {
		}
	}
	prefix := netip.PrefixFrom(addr, bits)
	return prefix, prefix.IsValid() && bits > 0
}

// noteNetworks notes the networks of the domain's NICs without which it will not start. Setup starts those that it needs
// itself; the others are the user's.
func (c *Conn) noteNetworks(p *Plan, def *domainDef, opts SetupOptions) error {
	noted := map[string]bool{"": true, opts.HostOnly: true}
	for _, i := range def.Interfaces {
		name := i.Source.Network
		if noted[name] {
			continue
		}
		noted[name] = true
		n, _, err := c.network(name)
		if err != nil {
			return err
		}
		note := func(format string, args ...any) { p.Notes = append(p.Notes, fmt.Sprintf(format, args...)) }
		switch {
		case !n.Exists:
			note("network %s does not exist, and %s does not start without it; see: virsh -c %s net-list --all", name, p.Domain, c.driver)
		case !n.Active:
			note("network %s is not active, and %s does not start without it: virsh -c %s net-start %[1]s", name, p.Domain, c.driver)
		}
		if n.Exists && !n.Active && !n.Autostart {
			note("network %s is not started with libvirt either: virsh -c %s net-autostart %[1]s", name, c.driver)
		}
	}
	return nil
}

// networkUses lists the subnets of all libvirt networks, active or not.
func (c *Conn) networkUses() ([]use, error) {
	refs, _, err := c.lv.ConnectListAllNetworks(1, 0)
	if err != nil {
		return nil, fmt.Errorf("listing networks: %w", err)
	}
	var uses []use
	for _, ref := range refs {
		text, err := c.lv.NetworkGetXMLDesc(ref, 0)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", ref.Name, err)
		}
		def, err := parseNetwork(text)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", ref.Name, err)
		}
		for _, ip := range def.IPs {
			if prefix, ok := prefixOf(ip); ok {
				uses = append(uses, use{prefix.Masked(), "the libvirt network " + ref.Name})
			}
		}
	}
	return uses, nil
}

// hostOnlyXML defines a network without a forward element: guests and host reach each other, nothing else. It serves no
// DNS, because a guest that took this network's server for its first would resolve no name of the outside.
func hostOnlyXML(name string, subnet netip.Prefix) (string, error) {
	subnet = subnet.Masked()
	if !subnet.Addr().Is4() || subnet.Bits() < 8 || subnet.Bits() > 29 {
		return "", fmt.Errorf("subnet %v of network %s: want an IPv4 subnet of /8 to /29", subnet, name)
	}
	size := uint32(1) << (32 - subnet.Bits())
	base := number(subnet.Addr())
	// The lower part stays free for addresses set by hand: 1 to 99 of a /24.
	first, last := base+max(2, size*100/256), base+size-2
	def := libvirtxml.Network{
		Name:     name,
		Metadata: &libvirtxml.NetworkMetadata{XML: `<rum:setup xmlns:rum='` + setupNS + `'/>`},
		DNS:      &libvirtxml.NetworkDNS{Enable: "no"},
		IPs: []libvirtxml.NetworkIP{{
			Address: addrOf(base + 1).String(),
			Prefix:  uint(subnet.Bits()),
			DHCP: &libvirtxml.NetworkDHCP{Ranges: []libvirtxml.NetworkDHCPRange{{
				Start: addrOf(first).String(), End: addrOf(last).String(),
			}}},
		}},
	}
	text, err := def.Marshal()
	if err != nil {
		return "", fmt.Errorf("writing the XML of network %s: %w", name, err)
	}
	return tidy(text), nil
}

// subnetFree returns an error that proposes another subnet if this one is in use.
func (c *Conn) subnetFree(subnet netip.Prefix) error {
	uses, err := hostRoutes()
	if err != nil {
		return err
	}
	networks, err := c.networkUses()
	if err != nil {
		return err
	}
	return checkSubnet(subnet, append(networks, uses...))
}

func checkSubnet(subnet netip.Prefix, uses []use) error {
	taken, ok := overlapping(subnet, uses)
	if !ok {
		return nil
	}
	hint := "no private subnet of this size is free: try a smaller one under [network] in rum.toml"
	if free, ok := freeSubnet(subnet, uses); ok {
		hint = fmt.Sprintf("%v is free: set subnet = %q under [network] in rum.toml", free, free)
	}
	return advise(fmt.Errorf("%w: %v overlaps %s", ErrSubnetTaken, subnet, taken.by), hint)
}
