package guestagent

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/prometheus/procfs"
)

// hostAddress is where this machine finds its host: the first address of the network of
// a NIC that is no way to the internet, which is the host's on a host-only network, or
// else the gateway to the internet, which under NAT is the host's too. It is not valid
// while there is neither.
//
// No NIC leads to the host that is not a NIC at all (a tunnel, the tap of a VM in the
// guest), nor one that has the first address itself (a bridge for containers). Of
// several, the first counts.
func hostAddress() netip.Addr {
	gateway, by := defaultRoute()
	interfaces, err := net.Interfaces()
	if err != nil {
		return gateway
	}
	kinds := linkKinds()
	for _, i := range interfaces {
		if i.Name == by || !nicKinds[kinds[i.Index]] || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagBroadcast == 0 || i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if host := firstOf(a.String()); host.IsValid() {
				return host
			}
		}
	}
	return gateway
}

// firstOf is the first address of a private network, by an address in it with its
// length; not valid if that is the address itself, or a network has no host.
func firstOf(cidr string) netip.Addr {
	p, err := netip.ParsePrefix(cidr)
	if err != nil || !p.Addr().Is4() || !p.Addr().IsPrivate() || p.Bits() > 30 {
		return netip.Addr{}
	}
	if first := p.Masked().Addr().Next(); first != p.Addr() {
		return first
	}
	return netip.Addr{}
}

// routeGateway is RTF_GATEWAY of linux/route.h.
const routeGateway = 2

// defaultRoute is the gateway to everything else and the interface by which it is
// reached: that of the least metric.
func defaultRoute() (gateway netip.Addr, by string) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return gateway, ""
	}
	routes, err := proc.NetRoute()
	if err != nil {
		return gateway, ""
	}
	least := uint32(0)
	for _, r := range routes {
		if r.Destination != 0 || r.Mask != 0 || r.Flags&routeGateway == 0 || by != "" && r.Metric >= least {
			continue
		}
		// The file has the bytes of an address as a number of this machine.
		gateway = netip.AddrFrom4([4]byte(binary.NativeEndian.AppendUint32(nil, r.Gateway)))
		by, least = r.Iface, r.Metric
	}
	return gateway, by
}
