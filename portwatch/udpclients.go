package portwatch

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// UDPSockets are the UDP sockets of this network namespace at one moment.
type UDPSockets map[uint16][]socket

// LookUDPSockets asks the kernel which UDP sockets there are.
func LookUDPSockets() (UDPSockets, error) {
	d, err := dialDiag()
	if err != nil {
		return nil, err
	}
	defer d.close()
	all := make(UDPSockets)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := d.dump(place{proto: "udp", family: family}, func(s socket) {
			all[s.addr.Port()] = append(all[s.addr.Port()], s)
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Has tells whether a socket can be where a datagram came from: one at that address,
// or at a wildcard address that stands for it. A socket of IPv6 takes part in IPv4 as
// long as it was not told not to.
func (u UDPSockets) Has(a netip.AddrPort) bool {
	ip := a.Addr().Unmap().WithZone("")
	for _, s := range u[a.Port()] {
		at := s.addr.Addr()
		if at == ip || at.IsUnspecified() && (at.Is4() == ip.Is4() || at.Is6() && !s.v6only) {
			return true
		}
	}
	return false
}
