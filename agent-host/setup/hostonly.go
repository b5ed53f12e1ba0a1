package setup

import (
	"fmt"
	"net/netip"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"libvirt.org/go/libvirtxml"
)

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
		Metadata: &libvirtxml.NetworkMetadata{XML: `<rum:setup xmlns:rum='` + libvirt.SetupNamespace + `'/>`},
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

// networkUses are the subnets of all libvirt networks, active or not.
func networkUses(c *libvirt.Conn) ([]use, error) {
	subnets, err := c.Subnets()
	if err != nil {
		return nil, err
	}
	var uses []use
	for _, s := range subnets {
		uses = append(uses, use{s.Prefix, "the libvirt network " + s.Network})
	}
	return uses, nil
}

// subnetFree returns an error that proposes another subnet if this one is in use.
func subnetFree(c *libvirt.Conn, subnet netip.Prefix) error {
	uses, err := hostRoutes()
	if err != nil {
		return err
	}
	networks, err := networkUses(c)
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
	return libvirt.Advise(fmt.Errorf("%w: %v overlaps %s", ErrSubnetTaken, subnet, taken.by), hint)
}
