package config

import (
	"fmt"
	"net/netip"

	"github.com/rum-vm/rum-agent/portwatch"
)

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
	t.allow("enabled", "range", "bind")
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
func (a *auto) decide(r *Rule, l portwatch.Listener) Decision {
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
func (a *auto) keptIn(l portwatch.Listener) kept {
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
func HostForLow(l portwatch.Listener) (host uint16, low bool) {
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
