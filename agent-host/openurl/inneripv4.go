package openurl

import "net/netip"

// Prefixes of addresses of IPv6 that have one of IPv4 in them.
var (
	compatible = netip.MustParsePrefix("::/96")        // RFC 4291, section 2.5.5.1
	nat64      = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour  = netip.MustParsePrefix("2002::/16")    // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")    // RFC 4380
)

// innerIPv4 is the address of IPv4 that an address of IPv6 leads to or by way of, where this host or its network
// translates or wraps it; the zero Addr where there is none. A mapped one is one of IPv4 itself.
func innerIPv4(addr netip.Addr) netip.Addr {
	if !addr.Is6() || addr.Is4In6() || addr.IsUnspecified() || addr.IsLoopback() {
		return netip.Addr{}
	}
	b := addr.As16()
	last := netip.AddrFrom4([4]byte(b[12:]))
	switch {
	case compatible.Contains(addr), nat64.Contains(addr):
		return last
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case teredo.Contains(addr):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP (RFC 5214, section 6.1)
		return last
	}
	return netip.Addr{}
}
