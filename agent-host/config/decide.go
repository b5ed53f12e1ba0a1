package config

import (
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/portwatch"
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
	// Rule is the name of the rule that decided, and Label what it is for.
	Rule, Label string
	// Also is where else the listener is on the host.
	Also []Decision
}

// Decide tells what becomes of a listener in a VM.
func (rs Rules) Decide(vm string, l portwatch.Listener) Decision {
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
func (rs Rules) also(first *Rule, vm string, l portwatch.Listener) (more []Decision) {
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
func (rs Rules) AsksProcess(vm string, l portwatch.Listener) bool {
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

func (r *Rule) matches(vm string, l portwatch.Listener) bool {
	return !r.Reverse && r.auto == nil && r.Guest.Has(l.Addr.Port()) && r.Proto.Has(l.Proto) && r.GuestIP.Matches(l.Addr.Addr()) &&
		r.forVM(vm) && (!r.ofProgram() || r.matchesProgram(l))
}

// matchesProgram is never true for a program that is not known. A pattern takes time in
// proportion to what it is matched against, which has a bound.
func (r *Rule) matchesProgram(l portwatch.Listener) bool {
	p := l.Program
	if l.Process == "" || r.Dir != "" && !within(r.Dir, p) {
		return false
	}
	return r.Process == nil || r.Process.MatchString(processName(l.Process)) || p.Command != "" && r.Process.MatchString(p.Command)
}

// within reports whether a program works in a directory or in one below it.
func within(dir string, p portwatch.Program) bool {
	if rest, ok := strings.CutPrefix(dir, "~"); ok {
		if p.Home == "" {
			return false
		}
		dir = path.Join(p.Home, rest)
	}
	return p.Dir == dir || strings.HasPrefix(p.Dir, strings.TrimSuffix(dir, "/")+"/")
}

func (r *Rule) decision(l portwatch.Listener) Decision {
	d := Decision{Rule: r.Name, Label: r.Label, ProxyProtocol: r.ProxyProtocol}
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
// where they go.
func (rs Rules) Static(vm string) []portwatch.Listener {
	var out []portwatch.Listener
	for i := range rs {
		r := &rs[i]
		if !r.Static || r.GuestSocket != "" || !r.forVM(vm) {
			continue
		}
		for _, proto := range []string{"tcp", "udp"} {
			for n := range r.Guest.Len() {
				port := r.Guest.First + uint16(n)
				l := portwatch.Listener{Proto: proto, Addr: netip.AddrPortFrom(r.GuestIP.Expected(), port)}
				// A rule before this one may decide otherwise.
				if r.matches(vm, l) && rs.Decide(vm, l).of(r.Name) && !slices.Contains(out, l) {
					out = append(out, l)
				}
			}
		}
	}
	return out
}
