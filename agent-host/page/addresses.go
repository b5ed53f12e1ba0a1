package page

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// DefaultAddress is where the page is served unless the user says otherwise.
const DefaultAddress = "localhost:7070"

// ParseAddresses reads HOST:PORT, where the host is an address of loopback; localhost, or no host, is both
// of its usual ones.
func ParseAddresses(text string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return nil, fmt.Errorf("want [HOST]:PORT, such as localhost:7070, or none")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("%q is no port", port)
	}
	if host == "" || host == "localhost" {
		return []netip.AddrPort{
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n)), netip.AddrPortFrom(netip.IPv6Loopback(), uint16(n)),
		}, nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Unmap().IsLoopback() {
		return nil, fmt.Errorf("%q is no address of loopback, and nothing here is for other machines", host)
	}
	return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), uint16(n))}, nil
}
