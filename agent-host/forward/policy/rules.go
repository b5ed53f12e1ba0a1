package policy

import (
	"iter"
	"net/netip"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Rules decides what becomes of a listener in the VM of that name. It is
// called for every listener of every announcement, by several goroutines at once.
type Rules func(vm string, l portlist.Listener) Decision

// Static tells what is to be forwarded in the VM of that name although nothing is
// seen to listen there, to the places that [Decision.Static] says. It is called by several goroutines at once.
type Static func(vm string) []portlist.Listener

// Names tells up to which port of the host, in a row from at on, rules name what is theirs in
// the VM of that name; 0 where none names at. It is called by several goroutines at once.
type Names func(vm, proto string, at netip.AddrPort) (last uint16)

// Decision is what a rule says about a listener.
type Decision struct {
	// Host are the addresses to listen on: all of them or, while one cannot
	// be bound, none.
	Host []netip.AddrPort
	// HostSocket is the absolute path of a unix socket to listen on, in the
	// place of Host.
	HostSocket string
	// Verdict is [status.Ignored] or [status.Denied] for a listener that
	// stays in the guest, with no Host but one that was released; empty for one that is
	// forwarded.
	Verdict string
	// ProxyProtocol tells the service its client's address, with a header of the PROXY
	// protocol, version 2, before the client's bytes. It is for TCP alone.
	ProxyProtocol bool
	// Automatic says that no rule names the port. The forward gives way to those of the
	// same VM that rules name.
	Automatic bool
	// Static says that it is forwarded before anything is seen to listen, as far as
	// [Static] tells of the port. What is Also does not follow it.
	Static bool
	// NextFree takes the next port that is free, and that no rule names, where one of Host is
	// in use. It is for addresses alone.
	NextFree bool
	// Open is what the rule says, of one that has a browser opened; empty for others.
	Open string
	// Hold is how long clients wait for a service that is not there, and how long the
	// host listeners of one that has gone stay; 0 for not at all. It is for TCP alone.
	Hold time.Duration
	// Rule is the name of the rule, Label what it is for in the user's words, and Reason
	// why the verdict is what it is.
	Rule, Label, Reason string
	// Also is where the listener is besides, each a forward of its own. The VM's own
	// address belongs to the first, or stays with another that had it before that came.
	Also []Decision

	second bool // it is one of Also
}

// IsSecond reports whether the decision is another's Also, as [Policy.Decide] has it.
func (d Decision) IsSecond() bool { return d.second }

// all are a decision and those beside it.
func (d Decision) all() iter.Seq[Decision] {
	return func(yield func(Decision) bool) {
		if !yield(d) {
			return
		}
		for _, a := range d.Also {
			a.second = true
			if !yield(a) {
				return
			}
		}
	}
}

// appendKey appends what tells decisions about a port apart that need different host
// listeners; most ports have the same. The name of the rule is no part of it: a forward
// that stays the same under another rule keeps its listeners.
func (d Decision) appendKey(b []byte, port uint16) []byte {
	if d.Verdict != "" {
		return append(b, d.Verdict...)
	}
	if d.HostSocket != "" {
		return append(b, d.HostSocket...)
	}
	if d.NextFree {
		b = append(b, "or next "...)
	}
	for _, a := range d.Host {
		if a.Port() == port {
			b = a.Addr().AppendTo(b)
		} else {
			b = a.AppendTo(b)
		}
		b = append(b, ' ')
	}
	return b
}

// DefaultRule is the name of the rule behind all others.
const DefaultRule = "default"

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// SamePort is the rule behind all others: every port is at the same port of the
// host's loopback.
func SamePort(_ string, l portlist.Listener) Decision {
	return Decision{Rule: DefaultRule, Automatic: true, Host: []netip.AddrPort{
		netip.AddrPortFrom(loopback4, l.Addr.Port()),
		netip.AddrPortFrom(loopback6, l.Addr.Port()),
	}}
}
