package host

import (
	"errors"
	"net"
	"net/netip"
	"slices"

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

// Ruled are the addresses that a decision has for what listens in a guest, in the order of its rule.
func Ruled(k policy.Key, d *policy.Decision) []Addr {
	if d.HostSocket != "" {
		return []Addr{{Proto: policy.ProtoUnix, Path: d.HostSocket}}
	}
	proto := k.Proto
	if proto == policy.ProtoUnix {
		proto = "tcp" // a socket in the guest, a port here
	}
	out := make([]Addr, len(d.Host))
	for i, a := range d.Host {
		out[i] = Addr{Proto: proto, Addr: a}
	}
	return out
}

// AddrPorts are those of addresses that are no paths.
func AddrPorts(all []Addr) []netip.AddrPort {
	out := make([]netip.AddrPort, len(all))
	for i, h := range all {
		out[i] = h.Addr
	}
	return out
}

// Shifted are addresses at ports that are greater by n.
func Shifted(all []Addr, n int) []Addr {
	out := slices.Clone(all)
	for i, h := range all {
		out[i].Addr = netip.AddrPortFrom(h.Addr.Addr(), h.Addr.Port()+uint16(n))
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

// Spots are those of addresses, none twice.
func Spots(all []Addr) []Spot {
	out := make([]Spot, 0, 1)
	for _, h := range all {
		if s := h.Spot(); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

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
