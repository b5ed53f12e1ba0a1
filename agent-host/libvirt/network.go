package libvirt

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

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
	defer c.Bound(ctx, refreshLimit)()
	n, ref, err := c.network(name)
	if err != nil || !n.Exists {
		return n, err
	}
	owners, err := c.macOwners()
	if err != nil {
		return n, err
	}
	leases, _, err := c.lv.NetworkGetDhcpLeases(ref, nil, 1, 0)
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

// Network reports on the network of that name, without its leases.
func (c *Conn) Network(name string) (Network, error) {
	n, _, err := c.network(name)
	return n, err
}

// network reads the definition and state of a network, without its leases.
func (c *Conn) network(name string) (Network, golibvirt.Network, error) {
	n := Network{Name: name}
	ref, err := c.lv.NetworkLookupByName(name)
	if IsCode(err, golibvirt.ErrNoNetwork) {
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
	n.Ours = strings.Contains(def.Metadata.XML, SetupNamespace)
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
	size, _ := strconv.Atoi(ip.Prefix)
	if mask, err := netip.ParseAddr(ip.Netmask); err == nil && mask.Is4() {
		b := mask.As4()
		size = bits.LeadingZeros32(^binary.BigEndian.Uint32(b[:]))
	}
	prefix := netip.PrefixFrom(addr, size)
	return prefix, prefix.IsValid() && size > 0
}

// Subnet is a subnet of a libvirt network.
type Subnet struct {
	Prefix  netip.Prefix // masked
	Network string
}

// Subnets lists the IPv4 subnets of all libvirt networks, active or not.
func (c *Conn) Subnets() ([]Subnet, error) {
	refs, _, err := c.lv.ConnectListAllNetworks(1, 0)
	if err != nil {
		return nil, fmt.Errorf("listing networks: %w", err)
	}
	var subnets []Subnet
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
				subnets = append(subnets, Subnet{prefix.Masked(), ref.Name})
			}
		}
	}
	return subnets, nil
}
