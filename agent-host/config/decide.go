package config

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// DefaultRule is the name of the rule behind all others, where the file has no
// [auto_ports]: every port is at the same port of the host's loopback, except what
// is kept in the guest by default.
const DefaultRule = "default"

// Decision is what becomes of a listener.
type Decision struct {
	// Host are the addresses to listen on, HostSocket the path: one of them is
	// there unless the listener stays in the guest.
	Host       []netip.AddrPort
	HostSocket string
	// ProxyProtocol tells the service its client's address.
	ProxyProtocol bool
	// Hold is how long clients wait for the service; 0 for not at all, and for datagrams.
	Hold time.Duration
	// Automatic says that no rule matched: [auto_ports] decided, or what is in its place.
	Automatic bool
	// Ignored listeners stay in the guest, and Reason says why.
	Ignored bool
	Reason  string
	// Static is at its place before anything is seen to listen; see [Rules.Static].
	Static bool
	// NextFree takes the next free port where a conflict is, and Open is that of the rule.
	NextFree bool
	Open     string
	// Rule is the name of the rule that decided, and Label what it is for.
	Rule, Label string
	// Also is where else the listener is on the host.
	Also []Decision
}

// Decide tells what becomes of a listener in a VM.
func (rs Rules) Decide(vm string, l portlist.Listener) Decision {
	implied := rs.implied()
	kept := implied.auto.keptIn(l)
	for i := range rs {
		if r := &rs[i]; r.matches(vm, l) && !kept.holds(r) {
			d := r.decision(l)
			d.Also = rs[i+1:].also(r, vm, l)
			return d
		}
	}
	if kept.reason != "" {
		return Decision{Ignored: true, Reason: kept.reason, Rule: DefaultRule}
	}
	return implied.auto.decide(&implied, l)
}

// also is what rules decide beside an earlier one, up to the first that would replace it.
func (rs Rules) also(first *Rule, vm string, l portlist.Listener) (more []Decision) {
	if !first.adds {
		return nil
	}
	for i := range rs {
		r := &rs[i]
		if !r.matches(vm, l) {
			continue
		}
		if !r.joins(first) {
			break
		}
		more = append(more, r.decision(l))
	}
	return more
}

// AsksProcess reports whether it takes knowing its process to decide about a
// listener: a rule that comes before the one that would decide asks for it, and matches
// in everything else, or it may be a resolver of the guest's own.
func (rs Rules) AsksProcess(vm string, l portlist.Listener) bool {
	kept := rs.implied().auto.keptIn(l)
	for i := range rs {
		r := &rs[i]
		if kept.holds(r) {
			continue
		}
		if r.matches(vm, l) {
			return false
		}
		if any := *r; r.ofProgram() {
			if any.Process, any.Dir = nil, ""; any.matches(vm, l) {
				return true
			}
		}
	}
	return l.Addr.Port() == dnsPort
}

func (r *Rule) matches(vm string, l portlist.Listener) bool {
	return !r.Reverse && r.auto == nil && r.Guest.Has(l.Addr.Port()) && r.Proto.Has(l.Proto) && r.GuestIP.matches(l.Addr.Addr()) &&
		r.forVM(vm) && (r.HostSocket == "" || r.trusts(vm)) && (!r.ofProgram() || r.matchesProgram(l))
}

// matchesProgram is never true for a program that is not known. A pattern takes time in
// proportion to what it is matched against, which has a bound.
func (r *Rule) matchesProgram(l portlist.Listener) bool {
	p := l.Program
	if l.Process == "" || r.Dir != "" && !within(r.Dir, p) {
		return false
	}
	return r.Process == nil || r.Process.MatchString(processName(l.Process)) || p.Command() != "" && r.Process.MatchString(p.Command())
}

// within reports whether a program works in a directory or in one below it.
func within(dir string, p portlist.Program) bool {
	if rest, ok := strings.CutPrefix(dir, "~"); ok {
		if p.Home() == "" {
			return false
		}
		dir = path.Join(p.Home(), rest)
	}
	return p.Dir() == dir || strings.HasPrefix(p.Dir(), strings.TrimSuffix(dir, "/")+"/")
}

func (r *Rule) decision(l portlist.Listener) Decision {
	d := Decision{Rule: r.Name, Label: r.Label, ProxyProtocol: r.ProxyProtocol, Static: r.Static, NextFree: r.NextFree, Open: r.Open}
	if l.Proto == string(TCP) {
		d.Hold = r.Hold
	}
	switch {
	case r.Ignore:
		d.Ignored, d.Reason = true, "ignored by "+r.Name
	case r.HostSocket != "":
		d.HostSocket = r.HostSocket
	default:
		port := r.Host.First + (l.Addr.Port() - r.Guest.First)
		for _, ip := range r.HostIP {
			d.Host = append(d.Host, netip.AddrPortFrom(ip, port))
		}
	}
	return d
}

// of reports whether a rule has a part in a decision.
func (d Decision) of(rule string) bool {
	return d.Rule == rule || slices.ContainsFunc(d.Also, func(a Decision) bool { return a.Rule == rule })
}

// Static returns a listener for each port that static rules keep open for a
// VM, whether or not anything is seen to listen there. [Rules.Decide] says
// where they go, and which of those places are static.
func (rs Rules) Static(vm string) []portlist.Listener {
	var out []portlist.Listener
	for i := range rs {
		r := &rs[i]
		if !r.Static || r.GuestSocket != "" || !r.forVM(vm) {
			continue
		}
		for _, proto := range []string{"tcp", "udp"} {
			for n := range r.Guest.Len() {
				port := r.Guest.First + uint16(n)
				l := portlist.Listener{Proto: proto, Addr: netip.AddrPortFrom(r.GuestIP.Expected(), port)}
				// A rule before this one may decide otherwise.
				if r.matches(vm, l) && rs.Decide(vm, l).of(r.Name) && !slices.Contains(out, l) {
					out = append(out, l)
				}
			}
		}
	}
	return out
}

// firstOrdinary is the first port that is forwarded although no rule names it.
// Those below it belong to the system's own services, here as in the guest.
const firstOrdinary = 1024

// auto is the [auto_ports] table, which decides about what no rule matches. It is
// the last of the [Rules] of a file that has the table.
type auto struct {
	off bool
	// ports are those written in the file, the zero value if none are.
	ports Ports
}

func (t table) auto(name string) Rule {
	t.allow(autoKeys...)
	r := impliedRule()
	r.Name = name
	if on, ok := get[bool](t, "enabled", "true or false"); ok {
		r.auto.off = !on
	}
	r.auto.ports, _ = t.ports("range")
	if text, ok := t.text("bind"); ok {
		ips, err := parseHostIP(text)
		if err != nil {
			t.errorf("bind", "%v", err)
		}
		r.HostIP = ips
	}
	return r
}

func impliedRule() Rule {
	return Rule{Name: DefaultRule, HostIP: []netip.Addr{loopback4, loopback6}, auto: &auto{}}
}

// implied returns the rule behind the others.
func (rs Rules) implied() Rule {
	if n := len(rs); n > 0 && rs[n-1].auto != nil {
		return rs[n-1]
	}
	return impliedRule()
}

// decide tells what becomes of a listener that no rule has matched.
func (a *auto) decide(r *Rule, l portlist.Listener) Decision {
	keep := func(reason string) Decision { return Decision{Ignored: true, Reason: reason, Rule: r.Name} }
	switch {
	case a.off:
		return keep("auto_ports is off")
	case a.ports != (Ports{}) && !a.ports.Has(l.Addr.Port()):
		return keep(fmt.Sprintf("not in the range of auto_ports, %v", a.ports))
	}
	d := Decision{Rule: r.Name, Automatic: true}
	for _, ip := range r.HostIP {
		d.Host = append(d.Host, netip.AddrPortFrom(ip, l.Addr.Port()))
	}
	return d
}

// kept is why a listener stays in the guest unless a rule says otherwise.
type kept struct {
	reason string
	// byPort: only a rule that names the port says otherwise. A program's name is
	// for the guest to choose.
	byPort bool
}

// keptIn says whether a listener stays in the guest; the zero value is no.
func (a *auto) keptIn(l portlist.Listener) kept {
	port := l.Addr.Port()
	if reason := noiseReason(l); reason != "" {
		return kept{reason: reason, byPort: port < firstOrdinary}
	}
	switch {
	case a.ports.Has(port):
		return kept{}
	case port < firstOrdinary:
		proto := ""
		if l.Proto != string(TCP) {
			proto = fmt.Sprintf(", proto = %q", l.Proto)
		}
		host, _ := HostForLow(l)
		return kept{fmt.Sprintf("below %d: add a rule, guest = %d, host = %d%s", firstOrdinary, port, host, proto), true}
	case l.Ephemeral:
		return kept{reason: "ephemeral"}
	}
	return kept{}
}

// HostForLow proposes a host port for a listener that stays in the guest because its port is low, and for no other reason;
// low is false for every other listener. A low host port would take root.
func HostForLow(l portlist.Listener) (host uint16, low bool) {
	if port := l.Addr.Port(); port < firstOrdinary && noiseReason(l) == "" {
		return port + 8000, true
	}
	return 0, false
}

// holds reports whether a rule leaves what is kept in where it is.
func (k kept) holds(r *Rule) bool {
	switch {
	case k.reason == "", r.Ignore, r.namesPort:
		return false
	}
	return k.byPort || !r.ofProgram()
}

// noise is what hardly anybody wants on the host, or what must not be there:
// the host has its own. Port numbers are those of the IANA registry.
var noise = []struct {
	proto  Proto
	ports  Ports
	reason string
}{
	{TCP, Ports{22, 22}, "the guest's ssh"},
	{UDP, Ports{67, 68}, "DHCP"},
	{UDP, Ports{546, 547}, "DHCPv6"},
	{UDP, Ports{123, 123}, "NTP"},
	{UDP, Ports{323, 323}, "chrony's control port"},
	{UDP, Ports{5353, 5353}, "mDNS"},
	{Any, Ports{5355, 5355}, "LLMNR"},
}

// What systemd-resolved listens on (systemd-resolved.service(8)).
var (
	resolvedStub  = netip.AddrFrom4([4]byte{127, 0, 0, 53})
	resolvedProxy = netip.AddrFrom4([4]byte{127, 0, 0, 54})
)

const (
	dnsPort = 53
	noiseBy = "; a rule that names the port forwards it"
)

// noiseReason says why a listener is kept in the guest by default; "" if it is
// not.
func noiseReason(l portlist.Listener) string {
	if l.Addr.Port() == dnsPort && isStub(l) {
		return "a DNS stub" + noiseBy
	}
	for _, n := range noise {
		if n.proto.Has(l.Proto) && n.ports.Has(l.Addr.Port()) {
			return n.reason + noiseBy
		}
	}
	return ""
}

// isStub knows the resolvers that serve the guest itself and its containers.
// Another server on the port is somebody's work.
func isStub(l portlist.Listener) bool {
	switch l.Addr.Addr() {
	case resolvedStub, resolvedProxy:
		return true
	}
	switch processName(l.Process) {
	case "systemd-resolve", "dnsmasq": // as the kernel cuts systemd-resolved off
		return true
	}
	return false
}

// Sockets returns the rules that forward unix sockets of a VM to the host. No
// listener matches them: nobody is seen to listen on a socket. Of several rules
// for one socket the first is returned.
func (rs Rules) Sockets(vm string) []Rule {
	var out []Rule
	seen := make(map[string]bool)
	for i := range rs {
		r := &rs[i]
		if r.Reverse || r.GuestSocket == "" || seen[r.GuestSocket] || !r.forVM(vm) || !r.trusts(vm) {
			continue
		}
		seen[r.GuestSocket] = true
		out = append(out, *r)
	}
	return out
}

// Names tells up to which port of the host, in a row from at on, a rule of a VM has its ports; 0
// where none has at. A rule that leaves guest out is about what the others leave, and names none.
func (rs Rules) Names(vm, proto string, at netip.AddrPort) (last uint16) {
	for i := range rs {
		r := &rs[i]
		names := (r.namesPort || r.GuestSocket != "") && !r.Ignore && !r.Reverse && r.HostSocket == ""
		if names && r.Host.Has(at.Port()) && r.Proto.Has(proto) && r.forVM(vm) && collide(r.HostIP, []netip.Addr{at.Addr()}) {
			last = max(last, r.Host.Last)
		}
	}
	return last
}

// Reverses returns the reverse rules for a VM.
func (rs Rules) Reverses(vm string) []Rule {
	var out []Rule
	for i := range rs {
		if r := &rs[i]; r.Reverse && r.forVM(vm) && r.trusts(vm) {
			out = append(out, *r)
		}
	}
	return out
}

// ReverseIP are the addresses that a reverse rule about ports listens on in the
// guest.
func (r *Rule) ReverseIP() []netip.Addr { return r.GuestIP.listen() }
