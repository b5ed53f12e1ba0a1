package portwatch

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// IPv6Off is what is Unusable about a socket that takes IPv6 only while this
// machine does not have its address, and not ::1 either.
const IPv6Off = "IPv6 is switched off in the guest"

// needsIPv6 reports whether only IPv6 reaches a socket.
func (s socket) needsIPv6() bool {
	ip := s.addr.Addr()
	return ip.Is6() && (s.v6only || !ip.IsUnspecified())
}

// ipv6 remembers during a scan which addresses are not here. While ::1 is, IPv6 is
// on, and no other is asked about.
type ipv6 map[netip.Addr]bool

func (a ipv6) off(s socket) bool {
	ip := s.addr.Addr()
	if ip.IsUnspecified() {
		ip = netip.IPv6Loopback()
	}
	return s.needsIPv6() && a.lacks(netip.IPv6Loopback()) && a.lacks(ip)
}

func (a ipv6) lacks(ip netip.Addr) bool {
	is, asked := a[ip]
	if !asked {
		is = lacksAddress(ip)
		a[ip] = is
	}
	return is
}

// lacksAddress asks the kernel, by binding a socket. Where it does not say, the
// address is here.
func lacksAddress(ip netip.Addr) bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// No port is needed, and nobody is to be told of a socket that has one. Where the
	// kernel does not know the option, it takes one.
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	return errors.Is(unix.Bind(fd, &unix.SockaddrInet6{Addr: ip.As16()}), unix.EADDRNOTAVAIL)
}
