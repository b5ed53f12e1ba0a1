package openurl

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
)

// hostsFile is where this host has names of its own (hosts(5)), and maxHosts how much of it is read, in bytes.
const (
	hostsFile = "/etc/hosts"
	maxHosts  = 1 << 20
)

// thisHost is what leads to this host itself beside localhost and loopback addresses, as far as it knows without
// asking anybody.
type thisHost struct {
	names map[string]bool
	addrs map[netip.Addr]bool // of its interfaces
}

// lookAtThisHost is this host as it is now, with the addresses of its interfaces.
func lookAtThisHost(addrs []netip.Addr) *thisHost {
	h := &thisHost{names: make(map[string]bool), addrs: make(map[netip.Addr]bool)}
	for _, addr := range addrs {
		h.addrs[addr] = true
	}
	if name, err := os.Hostname(); err == nil {
		h.names[strings.ToLower(name)] = true
	}
	if f, err := os.Open(hostsFile); err == nil {
		defer f.Close()
		h.readHosts(io.LimitReader(f, maxHosts))
	}
	return h
}

// addressesOfInterfaces are those that this host has now, without zones.
func addressesOfInterfaces() (all []netip.Addr, err error) {
	nets, err := net.InterfaceAddrs()
	for _, n := range nets {
		if prefix, err := netip.ParsePrefix(n.String()); err == nil {
			all = append(all, prefix.Addr().Unmap())
		}
	}
	return all, err
}

// has reports whether an address is one of this host's.
func (h *thisHost) has(addr netip.Addr) bool { return addr.IsLoopback() || h.addrs[addr] }

// readHosts adds the names of addresses of this host.
func (h *thisHost) readHosts(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) < 2 {
			continue
		}
		if ip, err := netip.ParseAddr(words[0]); err != nil || !h.has(ip.Unmap()) && !ip.IsUnspecified() {
			continue
		}
		for _, name := range words[1:] {
			h.names[strings.TrimSuffix(strings.ToLower(name), ".")] = true
		}
	}
}
