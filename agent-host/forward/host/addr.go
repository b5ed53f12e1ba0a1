package host

import (
	"errors"
	"net"
	"net/netip"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"golang.org/x/sys/unix"
)

// Addr is where something listens on the host: an address of a protocol, or
// the path of a unix socket.
type Addr struct {
	Proto string         // "tcp", "udp" or [policy.ProtoUnix]
	Addr  netip.AddrPort // not valid for a unix socket
	Path  string         // of that
}

// String is the address, or the path.
func (h Addr) String() string {
	if h.Proto == policy.ProtoUnix {
		return h.Path
	}
	return h.Addr.String()
}

// AddrPorts are those of addresses that are no paths.
func AddrPorts(all []Addr) []netip.AddrPort {
	out := make([]netip.AddrPort, len(all))
	for i, h := range all {
		out[i] = h.Addr
	}
	return out
}

// Wildcard is all addresses of the family and port of h.
func Wildcard(h Addr) Addr {
	any := netip.IPv4Unspecified()
	if h.Addr.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	h.Addr = netip.AddrPortFrom(any, h.Addr.Port())
	return h
}

// CanGo reports whether this host may lose an address, as a VPN's when that ends: 127/8 it always has, as long
// as it has any.
func CanGo(h Addr) bool {
	ip := h.Addr.Addr()
	return h.Path == "" && !ip.IsUnspecified() && !(ip.Is4() && ip.IsLoopback())
}

// Contests reports whether h may be, or have in it, the own address of a VM.
func Contests(h Addr) bool {
	ip := h.Addr.Addr()
	return h.Path == "" && (ip == netip.IPv4Unspecified() || policy.MayBeLoopback(ip))
}

// Spot is a port whatever the address, or the path of a unix socket: bindings
// contend with others on the same one only.
type Spot struct {
	proto string
	port  uint16
	path  string
}

// Spot is where h is contended for.
func (h Addr) Spot() Spot { return Spot{h.Proto, h.Addr.Port(), h.Path} }

// HasAddress reports whether this host has an address, as far as it says.
func HasAddress(ip netip.Addr) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return !NoSuchAddress(err)
	}
	_ = c.Close()
	return true
}

// NoSuchAddress reports whether an error says that this host lacks an address.
func NoSuchAddress(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)
}
