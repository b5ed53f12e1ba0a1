package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Words that stand for several addresses.
const (
	// WordAny is every address of the host.
	WordAny = "*"
	// WordLocalhost is what a program finds under the name localhost.
	WordLocalhost = "localhost"
	// WordLoopback is every loopback address of the guest.
	WordLoopback = "loopback"
	// WordWildcard is a listener on all addresses of the guest.
	WordWildcard = "wildcard"
)

var (
	wildcard4 = netip.IPv4Unspecified()
	wildcard6 = netip.IPv6Unspecified()
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// GuestIP says which addresses of listeners a rule is about. The zero value is
// all.
type GuestIP struct {
	// Word is one of [WordLocalhost], [WordLoopback] and [WordWildcard], or
	// empty where IP counts.
	Word string
	IP   netip.Addr
}

func parseGuestIP(s string) (GuestIP, error) {
	switch s {
	case WordLocalhost, WordLoopback, WordWildcard:
		return GuestIP{Word: s}, nil
	}
	ip, err := parseIP(s)
	if err != nil {
		return GuestIP{}, fmt.Errorf("%q is neither an IP address nor one of %q", shorten(s),
			[]string{WordLocalhost, WordLoopback, WordWildcard})
	}
	if ip.Zone() != "" {
		return GuestIP{}, fmt.Errorf("the address of a listener has no zone; write %v", ip.WithZone(""))
	}
	if ip.IsUnspecified() {
		return GuestIP{Word: WordWildcard}, nil
	}
	return GuestIP{IP: ip}, nil
}

// Matches reports whether a listener on that address is meant.
func (g GuestIP) Matches(ip netip.Addr) bool {
	switch g.Word {
	case WordWildcard:
		return ip.IsUnspecified()
	case WordLoopback:
		return ip.IsLoopback()
	case WordLocalhost:
		return ip.IsUnspecified() || ip == loopback4 || ip == loopback6
	}
	return !g.IP.IsValid() || g.IP == ip
}

// Expected is the address that a listener nobody has seen yet is taken to have.
func (g GuestIP) Expected() netip.Addr {
	switch {
	case g.IP.IsValid():
		return g.IP
	case g.Word == WordLoopback:
		return loopback4
	}
	return wildcard4
}

// parseHostIP returns the addresses to listen on.
func parseHostIP(s string) ([]netip.Addr, error) {
	switch s {
	case WordAny:
		return []netip.Addr{wildcard4, wildcard6}, nil
	case WordLocalhost:
		return []netip.Addr{loopback4, loopback6}, nil
	}
	ip, err := parseIP(s)
	if err != nil {
		return nil, fmt.Errorf("%q is neither an IP address nor one of %q", shorten(s), []string{WordLocalhost, WordAny})
	}
	return []netip.Addr{ip}, nil
}

func parseIP(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, err
	}
	if ip = ip.Unmap(); ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, errors.New("nothing listens on a multicast address")
	}
	return ip, nil
}

// collide reports whether two listeners on one port, with these addresses,
// would have one in common.
func collide(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(x netip.Addr) bool {
		return slices.ContainsFunc(b, func(y netip.Addr) bool {
			return x == y || x.Is4() == y.Is4() && (x.IsUnspecified() || y.IsUnspecified())
		})
	})
}

// listen are the addresses a reverse rule listens on in the guest.
func (g GuestIP) listen() []netip.Addr {
	switch {
	case g.IP.IsValid():
		return []netip.Addr{g.IP}
	case g.Word == WordWildcard:
		return []netip.Addr{wildcard4, wildcard6}
	}
	return []netip.Addr{loopback4, loopback6}
}
