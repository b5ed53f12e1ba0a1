package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Mapping says which ports of the host are for which of the guest, as commands name them.
type Mapping struct {
	Host, Guest Ports
	Proto       Proto // TCP or UDP
}

// ParseMapping reads [HOST:]GUEST, with a port or a range of them on each side.
func ParseMapping(text string, proto Proto) (Mapping, error) {
	host, guest, both := strings.Cut(text, ":")
	if !both {
		guest = host
	}
	m := Mapping{Proto: proto}
	var err error
	if m.Host, err = parsePorts(host); err == nil {
		m.Guest, err = parsePorts(guest)
	}
	switch {
	case err != nil:
		return Mapping{}, fmt.Errorf("%q is not [HOST:]GUEST, such as 8080:80: %w", shorten(text), err)
	case m.Host.Len() != m.Guest.Len():
		return Mapping{}, fmt.Errorf("%s: %s for %s in the guest: the ranges must be of one length", shorten(text), count(m.Host.Len()), count(m.Guest.Len()))
	}
	return m, nil
}

// String is the mapping as [ParseMapping] reads it, and its protocol behind a slash.
func (m Mapping) String() string { return fmt.Sprintf("%v:%v/%s", m.Host, m.Guest, m.Proto) }

// Shadow is the first of the rules of a VM that may decide about a port of the mapping; nil for
// none.
func (m Mapping) Shadow(rules Rules, vm string) *Rule {
	for i := range rules {
		r := &rules[i]
		if r.auto == nil && !r.Reverse && r.GuestSocket == "" && r.forVM(vm) && (r.Proto == Any || r.Proto == m.Proto) && overlap(r.Guest, m.Guest) {
			return r
		}
	}
	return nil
}

// Rival is the first of the rules of a VM that gives a host port of the mapping to another port
// of the guest, or to the same one; nil for none. One for all ports is about what others leave.
func (m Mapping) Rival(rules Rules, vm string) *Rule {
	for i := range rules {
		r := &rules[i]
		if !r.Reverse && !r.Ignore && r.forVM(vm) && (r.Proto == Any || r.Proto == m.Proto) && r.Guest != allPorts && overlap(r.Host, m.Host) &&
			(r.GuestSocket != "" || r.Guest == m.Guest || r.guestPort(max(r.Host.First, m.Host.First)) != m.Guest.First+max(r.Host.First, m.Host.First)-m.Host.First) {
			return r
		}
	}
	return nil
}

// Written is the first of the rules of a VM that maps the ports of the mapping to each other, for
// whatever listens on them; nil for none.
func (m Mapping) Written(rules Rules, vm string) *Rule {
	for i := range rules {
		r := &rules[i]
		if r.Guest == m.Guest && r.Host == m.Host && r.Proto == m.Proto && r.forVM(vm) && r.auto == nil && !r.Reverse && !r.Ignore && !r.ofCommand &&
			!r.ProxyProtocol && !r.ofProgram() && r.GuestIP == (GuestIP{}) {
			return r
		}
	}
	return nil
}

// NameAsGlob is the pattern of [Rule.VM] that a name alone matches.
func NameAsGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

// Around are the rules of a VM that take ports of the guest from one another, of which one is that
// of the mapping, of that name: those behind it, from which it takes some, and those before it.
// Rules for all ports are about what others leave, and not meant.
func (m Mapping) Around(rules Rules, vm, name string) (behind, before []*Rule) {
	self := slices.IndexFunc(rules, func(r Rule) bool {
		return r.Name == name && r.Guest == m.Guest && r.Host == m.Host && r.Proto == m.Proto
	})
	for i := range rules {
		if r := &rules[i]; self < 0 || i == self || !r.namesPort || r.auto != nil || r.Reverse || !overlap(r.Guest, m.Guest) || !r.forVM(vm) || !r.shareProto(&rules[self]) {
			continue
		} else if i > self && !r.joins(&rules[self]) {
			behind = append(behind, r)
		} else if i < self && !rules[self].joins(r) {
			before = append(before, r)
		}
	}
	return behind, before
}

func overlap(a, b Ports) bool {
	return a.Len() > 0 && b.Len() > 0 && a.First <= b.Last && b.First <= a.Last
}

// Rule is the rule that a file has with the mapping and hold alone. It is for any VM, and a
// place on the host beside those that rules behind it give the same ports.
func (m Mapping) Rule(name string, hold time.Duration) (Rule, error) {
	switch {
	case hold < 0 || hold > maxHold:
		return Rule{}, fmt.Errorf("hold %v: want a time such as 5s, %v at most", hold, maxHold)
	case hold > 0 && m.Proto == UDP:
		return Rule{}, fmt.Errorf("hold %v: it is for tcp only: datagrams do not wait", hold)
	}
	return Rule{
		Name: name, Proto: m.Proto, Guest: m.Guest, Host: m.Host, HostIP: []netip.Addr{loopback4, loopback6}, Hold: hold,
		namesPort: true, adds: true, ofCommand: true,
	}, nil
}
