package config

import (
	"net/netip"
)

// Values of [Network.Mode].
const (
	ModeNAT  = "nat"
	ModeNone = "none"
)

// Network is the [network] table: what the set-up gives a domain.
type Network struct {
	// Mode is how the VM reaches the internet: [ModeNAT], through libvirt's
	// NAT network, or [ModeNone].
	Mode string
	// HostOnly is the name of the host-only network; empty for none.
	HostOnly string
	// Subnet is that network's, IPv4.
	Subnet netip.Prefix
}

func defaultNetwork() Network {
	return Network{Mode: ModeNAT, HostOnly: "rum-hostonly", Subnet: netip.MustParsePrefix("192.168.50.0/24")}
}

// Sizes of a subnet: at least the host, a DHCP server's range and a broadcast
// address, at most the largest private range of the usual kind.
const (
	minSubnetBits = 8
	maxSubnetBits = 29
)

// networkKeys are those that rum does not have.
var networkKeys = []string{"mode", "host_only", "subnet"}

func (t table) network() Network {
	n := defaultNetwork()
	if mode, ok := t.word("mode", ModeNAT, ModeNone); ok {
		n.Mode = mode
	}
	if name, ok := get[string](t, "host_only", `the name of a network, or ""`); ok {
		n.HostOnly = name
	}
	text, ok := t.text("subnet")
	if !ok {
		return n
	}
	if n.HostOnly == "" {
		t.errorf("subnet", `says nothing when host_only is ""`)
	}
	subnet, err := netip.ParsePrefix(text)
	switch {
	case err != nil || !subnet.Addr().Is4():
		t.errorf("subnet", "%q is not an IPv4 subnet such as %q", shorten(text), n.Subnet)
	case subnet != subnet.Masked():
		t.errorf("subnet", "%q has bits behind its %d; did you mean %q?", text, subnet.Bits(), subnet.Masked())
	case subnet.Bits() < minSubnetBits || subnet.Bits() > maxSubnetBits:
		t.errorf("subnet", "/%d is not a size between /%d and /%d", subnet.Bits(), minSubnetBits, maxSubnetBits)
	case !subnet.Addr().IsPrivate():
		t.errorf("subnet", "%v is not private; take one of 192.168.0.0/16, 172.16.0.0/12 or 10.0.0.0/8", subnet)
	default:
		n.Subnet = subnet
	}
	return n
}
