package libvirt

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// HostPort is a host port that something other than rum agents forwards to a domain.
type HostPort struct {
	// By is what does it: "passt", "hostfwd" or "dnat".
	By string
	// Proto is "tcp", "udp" or "any".
	Proto string
	// Addr is the host address; unspecified where the mechanism takes all.
	Addr netip.Addr
	// First and Last bound the range of host ports; 0 and 0 for every port.
	First, Last uint16
	// Guest is where the first port leads: port 0 where each port keeps its number, and the zero Addr where the
	// mechanism knows its guest without one.
	Guest netip.AddrPort
}

// String is one line for a person, such as "tcp 127.0.0.1:2222 -> guest port 22 (passt)".
func (p HostPort) String() string {
	ports := "every port"
	switch {
	case p.First != 0 && p.First == p.Last:
		ports = fmt.Sprintf("%d", p.First)
	case p.First != 0:
		ports = fmt.Sprintf("%d-%d", p.First, p.Last)
	}
	s := p.Proto + " "
	if p.Addr.IsValid() && !p.Addr.IsUnspecified() {
		s += p.Addr.String() + ":"
	}
	s += ports
	switch {
	case p.Guest.Addr().IsValid() && p.Guest.Port() != 0:
		s += " -> " + p.Guest.String()
	case p.Guest.Addr().IsValid():
		s += " -> " + p.Guest.Addr().String()
	case p.Guest.Port() != 0:
		s += fmt.Sprintf(" -> guest port %d", p.Guest.Port())
	}
	return s + " (" + p.By + ")"
}

// HostPorts finds the host ports that QEMU or passt opens for a domain.
func (d *Definition) HostPorts() []HostPort {
	var ports []HostPort
	for _, iface := range d.Interfaces {
		for _, pf := range iface.PortForward {
			ports = append(ports, passtPorts(pf)...)
		}
	}
	for _, arg := range d.Arguments {
		ports = append(ports, parseHostfwd(arg.Value)...)
	}
	return ports
}

func passtPorts(pf portForwardDef) []HostPort {
	base := HostPort{By: "passt", Proto: pf.Proto}
	base.Addr, _ = netip.ParseAddr(pf.Address)
	if len(pf.Ranges) == 0 {
		return []HostPort{base}
	}
	var ports []HostPort
	for _, r := range pf.Ranges {
		start, err := strconv.ParseUint(r.Start, 10, 16)
		if err != nil || r.Exclude == "yes" {
			continue
		}
		end, _ := strconv.ParseUint(r.End, 10, 16) // without one it is a single port
		to, _ := strconv.ParseUint(r.To, 10, 16)
		p := base
		p.First, p.Last = uint16(start), uint16(max(start, end))
		p.Guest = netip.AddrPortFrom(netip.Addr{}, uint16(to))
		ports = append(ports, p)
	}
	return ports
}

// hostfwd is QEMU's user-mode forward as of -netdev user: hostfwd=[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport.
var hostfwd = regexp.MustCompile(`hostfwd=(tcp|udp)?:(\[[^\]]*\]|[^:,\[]*):(\d+)-(?:\[[^\]]*\]|[^:,\[]*):(\d+)`)

func parseHostfwd(arg string) []HostPort {
	var ports []HostPort
	for _, m := range hostfwd.FindAllStringSubmatch(arg, -1) {
		host, err1 := strconv.ParseUint(m[3], 10, 16)
		guest, err2 := strconv.ParseUint(m[4], 10, 16)
		if err1 != nil || err2 != nil {
			continue
		}
		p := HostPort{By: "hostfwd", Proto: m[1], First: uint16(host), Last: uint16(host),
			Guest: netip.AddrPortFrom(netip.Addr{}, uint16(guest))}
		if p.Proto == "" {
			p.Proto = "tcp"
		}
		p.Addr, _ = netip.ParseAddr(strings.Trim(m[2], "[]"))
		ports = append(ports, p)
	}
	return ports
}
