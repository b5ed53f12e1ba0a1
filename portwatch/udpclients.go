package portwatch

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// UDPSockets are the UDP sockets of this network namespace at one moment, by port.
type UDPSockets []udpSocket

// udpSocket is as little of a socket as is asked for: there may be tens of thousands.
type udpSocket struct {
	addr   netip.AddrPort
	v6only bool
}

// LookUDPSockets asks the kernel which UDP sockets there are.
func LookUDPSockets() (UDPSockets, error) {
	d, err := dialDiag()
	if err != nil {
		return nil, err
	}
	defer d.close()
	var all UDPSockets
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := d.dump(place{proto: "udp", family: family}, func(s socket) {
			all = append(all, udpSocket{s.addr, s.v6only})
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b udpSocket) int { return cmp.Compare(a.addr.Port(), b.addr.Port()) })
	return all, nil
}

// Has tells whether a socket can be where a datagram came from: one at that address,
// or at a wildcard address that stands for it. A socket of IPv6 takes part in IPv4 as
// long as it was not told not to.
func (u UDPSockets) Has(a netip.AddrPort) bool {
	ip := a.Addr().Unmap().WithZone("")
	first, _ := slices.BinarySearchFunc(u, a.Port(), func(s udpSocket, port uint16) int { return cmp.Compare(s.addr.Port(), port) })
	for _, s := range u[first:] {
		if s.addr.Port() != a.Port() {
			break
		}
		at := s.addr.Addr()
		if at == ip || at.IsUnspecified() && (at.Is4() == ip.Is4() || at.Is6() && !s.v6only) {
			return true
		}
	}
	return false
}
