package libvirt

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// address is one that libvirt has seen for a NIC.
type address struct {
	mac     string
	ip      netip.Addr
	expires int64 // Unix seconds; 0 where the source knows none
}

// bridgeIP chooses the address at which the host reaches the guest: the newest lease of the host-only network, else what
// libvirt reports otherwise, NIC by NIC in the order of the definition with the host-only NIC first.
func bridgeIP(nics []NIC, hostOnly string, leases, reported []address, onLink func(netip.Addr) bool) netip.Addr {
	ordered := slices.Clone(nics)
	slices.SortStableFunc(ordered, func(a, b NIC) int {
		isHostOnly := func(n NIC) int {
			if n.Network == hostOnly {
				return 0
			}
			return 1
		}
		return isHostOnly(a) - isHostOnly(b)
	})
	for _, n := range ordered {
		if hostOnly == "" || n.Network != hostOnly {
			continue
		}
		if ip := newest(leases, n.MAC, onLink); ip.IsValid() {
			return ip
		}
	}
	for _, n := range ordered {
		if ip := newest(reported, n.MAC, onLink); ip.IsValid() {
			return ip
		}
	}
	return netip.Addr{}
}

// newest is the address of the NIC whose lease ends last, IPv4 before IPv6. What a guest claims over ARP or DHCP counts
// only when the host has an interface on that subnet, so a guest cannot send the host's connections elsewhere.
func newest(seen []address, mac string, onLink func(netip.Addr) bool) netip.Addr {
	var best address
	for _, a := range seen {
		if a.mac != mac || mac == "" || !onLink(a.ip) {
			continue
		}
		switch {
		case !best.ip.IsValid(), a.ip.Is4() && !best.ip.Is4(), a.ip.Is4() == best.ip.Is4() && a.expires > best.expires:
			best = a
		}
	}
	return best.ip
}

// leases returns the leases of a network; none when there is no such network or it has no DHCP server.
func (c *Conn) leases(network string) []address {
	n, err := c.lv.NetworkLookupByName(network)
	if err != nil {
		return nil
	}
	found, _, err := c.lv.NetworkGetDhcpLeases(n, nil, 1, 0)
	if err != nil {
		return nil
	}
	var seen []address
	for _, l := range found {
		ip, err := netip.ParseAddr(l.Ipaddr)
		if err != nil || len(l.Mac) == 0 {
			continue
		}
		seen = append(seen, address{mac: strings.ToLower(l.Mac[0]), ip: ip.Unmap(), expires: l.Expirytime})
	}
	return seen
}

// reported returns the addresses that the host itself knows of a running domain: leases of libvirt's networks, then the
// kernel's neighbour table, which also has addresses that the guest set by hand. libvirt can be asked for that table too,
// but logs an error whenever it is empty.
func (c *Conn) reported(dom golibvirt.Domain, neighbours []address) []address {
	seen := slices.Clip(neighbours)
	ifaces, err := c.lv.DomainInterfaceAddresses(dom, uint32(golibvirt.DomainInterfaceAddressesSrcLease), 0)
	if err != nil {
		return seen
	}
	for _, iface := range ifaces {
		for _, a := range iface.Addrs {
			ip, err := netip.ParseAddr(a.Addr)
			if err == nil && len(iface.Hwaddr) > 0 {
				seen = slices.Insert(seen, 0, address{mac: strings.ToLower(iface.Hwaddr[0]), ip: ip.Unmap()})
			}
		}
	}
	return seen
}

// neighbours reads the kernel's neighbour table in the form of /proc/net/arp: address, hardware type, flags, MAC, mask
// and device in columns.
func neighbours(table io.Reader) []address {
	const complete = 0x2 // ATF_COM of linux/if_arp.h: the MAC is known
	var seen []address
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 {
			continue
		}
		ip, err := netip.ParseAddr(f[0])
		if err != nil {
			continue // the heading
		}
		flags, err := strconv.ParseUint(f[2], 0, 32)
		if err == nil && flags&complete != 0 {
			seen = append(seen, address{mac: strings.ToLower(f[3]), ip: ip})
		}
	}
	return seen
}

func hostNeighbours() []address {
	f, err := os.Open("/proc/net/arp")
	if err != nil {
		return nil
	}
	defer f.Close()
	return neighbours(f)
}

// onLink tells whether an address is a neighbour's: within the subnet of an interface of this host, and not the host's
// own.
func onLink() func(netip.Addr) bool {
	var prefixes []netip.Prefix
	addrs, _ := net.InterfaceAddrs() // none: nothing is on link
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			prefixes = append(prefixes, p)
		}
	}
	return func(ip netip.Addr) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) &&
			!slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr() == ip })
	}
}
