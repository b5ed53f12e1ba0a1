package hostagent

import (
	"net/netip"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/explain"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Explain tells step by step why a port answers or does not, for each forward that has it in
// the guest or on the host, in the VM of that name or, if that is empty, in all. Where nothing
// is known of the port it tells why, for each of those VMs, or for those alone whose rules put
// something on it. A name that nobody knows is no VM.
func (a *Agent) Explain(vm, proto string, port uint16) []status.Explanation {
	var found, ruled, absent []status.Explanation
	for st := range a.VMs(status.Query{VM: vm, Port: port}) {
		facts := explain.Facts{VM: st, Proto: proto, Port: port, Now: time.Now()}
		known := len(found)
		for i := range st.Forwards {
			f := &st.Forwards[i]
			facts.Twin = facts.Twin || isTwin(f, proto)
			if (f.Proto == proto || f.Proto == "unix" && proto == "tcp") && !f.Reverse {
				facts.Forward = f
				found = append(found, explain.Port(facts))
			}
		}
		if len(found) > known {
			continue
		}
		if guest, rule := ruledTo(a.rulesOf(st.Name), st.Name, proto, port); rule != "" {
			facts.Port, facts.Rule, facts.HostPort = guest, rule, port
		}
		facts.Own = a.ownListener(st.Name, proto, facts.Port)
		if e, ok := a.Events().Last(st.Name, proto, facts.Port, events.Stopped); ok {
			facts.Stopped, facts.Process = e.Time, e.Process
		}
		if facts.Rule != "" {
			ruled = append(ruled, explain.Port(facts))
		} else {
			absent = append(absent, explain.Port(facts))
		}
	}
	switch {
	case len(found) > 0:
		return found
	case len(ruled) > 0:
		return ruled
	}
	for _, name := range a.offNames() {
		if vm == name {
			absent = append(absent, explain.Port(explain.Facts{VM: status.VM{Name: name}, Off: true, Proto: proto, Port: port, Now: time.Now()}))
		}
	}
	return absent
}

// isTwin reports whether a forward of a port is of the other protocol.
func isTwin(f *status.Forward, proto string) bool {
	return (f.Proto == "tcp" || f.Proto == "udp") && f.Proto != proto && !f.Reverse
}

// ruledTo is which other port of a guest the rules put on a port of the host, and the name of the
// one that does; empty for none.
func ruledTo(rules config.Rules, vm, proto string, port uint16) (guest uint16, rule string) {
	there := func(at netip.AddrPort) bool { return at.Port() == port }
	for i := range rules {
		r := &rules[i]
		guest := r.Guest.First + port - r.Host.First
		if r.Reverse || r.GuestSocket != "" || !r.Host.Has(port) || guest == port {
			continue
		}
		// A rule before this one may decide otherwise.
		d := rules.Decide(vm, portlist.Listener{Proto: proto, Addr: netip.AddrPortFrom(r.GuestIP.Expected(), guest)})
		for _, d := range append([]config.Decision{d}, d.Also...) {
			if d.Rule == r.Name && slices.ContainsFunc(d.Host, there) {
				return guest, d.Rule
			}
		}
	}
	return 0, ""
}

func (a *Agent) ownListener(vm, proto string, port uint16) bool {
	a.mu.Lock()
	v := a.find(vm)
	a.mu.Unlock()
	return v != nil && v.forwards.OwnListener(proto, port)
}

// setOff says which VMs of a source do not run.
func (a *Agent) setOff(source string, names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.off == nil {
		a.off = make(map[string][]string)
	}
	a.off[source] = names
}

// offNames are the names of VMs that do not run.
func (a *Agent) offNames() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, names := range a.off {
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
