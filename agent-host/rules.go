package hostagent

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/reverse"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Project is what a VM has of a project of its own.
type Project struct {
	// ID tells projects apart for good. It takes the place of the VM's UUID.
	ID string
	// Config is what the project's file says, in the place of the rules for all VMs:
	// another value for each version of it.
	Config *config.Config
	// Status tells about the file.
	Status func() status.Config
}

// ruleSet is which rules hold for which VM. It does not change.
type ruleSet struct {
	all config.Rules
	own map[string]*Project // by the name of the VM
	// added come before the others of a VM, and joined is what they are with those.
	added, joined map[string]config.Rules
}

// of returns the rules for a VM.
func (s ruleSet) of(vm string) config.Rules {
	if rules, ok := s.joined[vm]; ok {
		return rules
	}
	return s.ofFile(vm)
}

// ofFile are those that no command has added.
func (s ruleSet) ofFile(vm string) config.Rules {
	if p := s.own[vm]; p != nil {
		return p.Config.Rules
	}
	return s.all
}

// SetRules replaces the rules for VMs without a project. Forwards that stay the same
// keep their listeners and connections.
func (a *Agent) SetRules(rules config.Rules) {
	a.rulesMu.Lock()
	defer a.rulesMu.Unlock()
	a.rules.all = rules
	a.useRules()
}

// SetProject has the VM of that name follow a project, or none if it is nil. It is as
// SetRules for the VM's forwards.
func (a *Agent) SetProject(vm string, p *Project) {
	a.rulesMu.Lock()
	defer a.rulesMu.Unlock()
	was := a.rules.own[vm]
	if was == nil && p == nil || was != nil && p != nil && was.Config == p.Config {
		return
	}
	own := maps.Clone(a.rules.own)
	if own == nil {
		own = make(map[string]*Project)
	}
	if own[vm] = p; p == nil {
		delete(own, vm)
	}
	a.rules.own = own
	a.useRules()
}

// useRules needs a.rulesMu.
func (a *Agent) useRules() {
	a.rules.joined = make(map[string]config.Rules)
	for vm, first := range a.rules.added {
		a.rules.joined[vm] = slices.Concat(first, a.rules.ofFile(vm))
	}
	rules := a.rules
	a.table.SetRules(decider(rules), statics(rules), sockets(rules), names(rules))
	a.table.SetReverse(reverses(rules))
}

// Project is what the VM of that name follows; nil for none.
func (a *Agent) Project(vm string) *Project {
	a.rulesMu.Lock()
	defer a.rulesMu.Unlock()
	return a.rules.own[vm]
}

// rulesOf returns the rules for the VM of that name.
func (a *Agent) rulesOf(vm string) config.Rules {
	a.rulesMu.Lock()
	defer a.rulesMu.Unlock()
	return a.rules.of(vm)
}

func statics(rules ruleSet) policy.Static {
	return func(vm string) []portlist.Listener { return rules.of(vm).Static(vm) }
}

func names(rules ruleSet) policy.Names {
	return func(vm, proto string, at netip.AddrPort) uint16 { return rules.of(vm).Names(vm, proto, at) }
}

// decider makes decisions of rules those of forwards.
func decider(rules ruleSet) policy.Rules {
	return func(vm string, l portlist.Listener) policy.Decision {
		d := rules.of(vm).Decide(vm, l)
		out := decision(d)
		for _, a := range d.Also {
			out.Also = append(out.Also, decision(a))
		}
		return out
	}
}

func decision(d config.Decision) policy.Decision {
	out := policy.Decision{
		Host: d.Host, HostSocket: inHome(d.HostSocket), ProxyProtocol: d.ProxyProtocol, Hold: d.Hold,
		Static: d.Static, NextFree: d.NextFree, Open: d.Open,
		Automatic: d.Automatic, Rule: d.Rule, Label: d.Label, Reason: d.Reason,
	}
	if d.Ignored {
		out.Verdict = status.Ignored
	}
	return out
}

// sockets makes rules about unix sockets of guests those of forwards.
func sockets(rules ruleSet) policy.Sockets {
	return func(vm string) []policy.GuestSocket {
		var out []policy.GuestSocket
		for _, r := range rules.of(vm).Sockets(vm) {
			d := policy.Decision{
				Host: on(r.HostIP, r.Host.First), HostSocket: inHome(r.HostSocket), ProxyProtocol: r.ProxyProtocol, Hold: r.Hold,
				NextFree: r.NextFree, Open: r.Open,
				Rule: r.Name, Label: r.Label,
			}
			out = append(out, policy.GuestSocket{Path: r.GuestSocket, Decision: d})
		}
		return out
	}
}

// reverses makes reverse rules those of forwards.
func reverses(rules ruleSet) reverse.Rules {
	return func(vm string) []reverse.Rule {
		var out []reverse.Rule
		for _, r := range rules.of(vm).Reverses(vm) {
			for n := range max(1, r.Guest.Len()) {
				rule := reverse.Rule{Rule: r.Name, Label: r.Label, GuestSocket: r.GuestSocket, HostSocket: inHome(r.HostSocket)}
				if r.GuestSocket == "" {
					rule.Guest = on(r.ReverseIP(), r.Guest.First+uint16(n))
				}
				if r.HostSocket == "" {
					rule.Host = on(r.HostIP, r.Host.First+uint16(n))
				}
				out = append(out, rule)
			}
		}
		return out
	}
}

func on(ips []netip.Addr, port uint16) []netip.AddrPort {
	out := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		out[i] = netip.AddrPortFrom(ip, port)
	}
	return out
}

// inHome puts the user's home in the place of a leading ~.
func inHome(path string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path // and listening says that there is no such directory
	}
	return filepath.Join(home, rest)
}
