package hostagent

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/reverse"
	"github.com/rum-vm/rum-agent/agent-host/forwardrules"
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
	return func(vm string, l portlist.Listener) policy.Decision { return forwardrules.Decide(rules.of(vm), vm, l) }
}

func sockets(rules ruleSet) policy.Sockets {
	return func(vm string) []policy.GuestSocket { return forwardrules.Sockets(rules.of(vm), vm) }
}

func reverses(rules ruleSet) reverse.Rules {
	return func(vm string) []reverse.Rule { return forwardrules.Reverses(rules.of(vm), vm) }
}
