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

// GuestIP says which addresses of listeners a rule is about: a word, an address
// as [netip.Addr.String] gives it, or "" for all.
type GuestIP string

func parseGuestIP(s string) (GuestIP, error) {
	switch s {
	case WordLocalhost, WordLoopback, WordWildcard:
		return GuestIP(s), nil
	}
	ip, err := parseIP(s)
	if err != nil {
		return "", fmt.Errorf("%q is neither an IP address nor one of %q", shorten(s),
			[]string{WordLocalhost, WordLoopback, WordWildcard})
	}
	if ip.Zone() != "" {
		return "", fmt.Errorf("the address of a listener has no zone; write %v", ip.WithZone(""))
	}
	if ip.IsUnspecified() {
		return WordWildcard, nil
	}
	return GuestIP(ip.String()), nil
}

// Matches reports whether a listener on that address is meant.
func (g GuestIP) Matches(ip netip.Addr) bool {
	switch g {
	case "":
		return true
	case WordWildcard:
		return ip.IsUnspecified()
	case WordLoopback:
		return ip.IsLoopback()
	case WordLocalhost:
		return ip.IsUnspecified() || ip == loopback4 || ip == loopback6
	}
	return ip.String() == string(g)
}

// Expected is the address that a listener nobody has seen yet is taken to have.
func (g GuestIP) Expected() netip.Addr {
	switch g {
	case "", WordWildcard, WordLocalhost:
		return wildcard4
	case WordLoopback:
		return loopback4
	}
	ip, _ := netip.ParseAddr(string(g))
	return ip
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
	switch g {
	case "", WordLocalhost:
		return []netip.Addr{loopback4, loopback6}
	case WordWildcard:
		return []netip.Addr{wildcard4, wildcard6}
	}
	return []netip.Addr{g.Expected()}
}
