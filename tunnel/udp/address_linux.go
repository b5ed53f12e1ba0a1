package udp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An address as the kernel has it, in the room of the larger kind.

// putAddr returns the length of what it has put there; 0 for no address.
func putAddr(sa *unix.RawSockaddrInet6, a netip.AddrPort) (length uint32) {
	switch ip := a.Addr(); {
	case ip.Is4():
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(a.Port()), Addr: ip.As4()}
		return unix.SizeofSockaddrInet4
	case ip.Is6():
		zone, _ := strconv.ParseUint(ip.Zone(), 10, 32)
		*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(a.Port()), Addr: ip.As16(), Scope_id: uint32(zone)}
		return unix.SizeofSockaddrInet6
	}
	return 0
}

// addrOf is the inverse of putAddr.
func addrOf(sa *unix.RawSockaddrInet6, length uint32) netip.AddrPort {
	switch {
	case length >= unix.SizeofSockaddrInet4 && sa.Family == unix.AF_INET:
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), swapped(sa4.Port))
	case length >= unix.SizeofSockaddrInet6 && sa.Family == unix.AF_INET6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.Scope_id != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, swapped(sa.Port))
	}
	return netip.AddrPort{}
}

// swapped is a number of 16 bits from or to network byte order.
func swapped(n uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}
