package netns

import (
	"bufio"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// addresses are those of a process's namespace that are in one of our networks, and not
// ours: a namespace that is connected by a program, as those of rootless containers are,
// may have a copy of our own.
func (f *Finder) addresses(pid int, networks []netip.Prefix) (all []netip.Addr, err error) {
	dir := filepath.Join(f.Proc, strconv.Itoa(pid), "net")
	v4, err := addressesV4(filepath.Join(dir, "fib_trie"))
	if err != nil {
		return nil, err
	}
	for _, a := range slices.Concat(v4, addressesV6(filepath.Join(dir, "if_inet6"))) {
		in := func(p netip.Prefix) bool { return p.Contains(a) && p.Bits() < a.BitLen() }
		is := func(p netip.Prefix) bool { return p.Addr() == a }
		if slices.ContainsFunc(networks, in) && !slices.ContainsFunc(networks, is) && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all, nil
}

// addressesV4 reads the addresses that a namespace takes for its own out of its routes
// (net/ipv4/fib_trie.c): below the line of an address is one that says "/32 host LOCAL".
func addressesV4(path string) (all []netip.Addr, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var at netip.Addr
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if text, ok := strings.CutPrefix(line, "|-- "); ok {
			at, _ = netip.ParseAddr(text)
		} else if line == "/32 host LOCAL" && at.IsValid() && !at.IsLoopback() && !at.IsLinkLocalUnicast() {
			all = append(all, at)
		}
	}
	return all, lines.Err()
}

// addressesV6 reads a namespace's IPv6 addresses, a line each that begins with 32
// hexadecimal digits (net/ipv6/addrconf.c).
func addressesV6(path string) (all []netip.Addr) {
	file, err := os.Open(path)
	if err != nil {
		return nil // no IPv6
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		digits, _, _ := strings.Cut(lines.Text(), " ")
		raw, err := hex.DecodeString(digits)
		if err != nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(raw); ok && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			all = append(all, a)
		}
	}
	return all
}

// reachable is the address at which a listener can be reached, of those that its namespace
// has; not valid if there is none.
func reachable(listens netip.Addr, at []netip.Addr) netip.Addr {
	for _, a := range at {
		if listens == a || listens.IsUnspecified() && (listens.Is6() || a.Is4()) {
			return a
		}
	}
	return netip.Addr{}
}
