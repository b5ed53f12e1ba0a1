package hostagent

import (
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/portwatch"
)

// SetRules replaces the rules. Forwards that stay the same keep their listeners
// and connections.
func (a *Agent) SetRules(rules config.Rules) {
	a.table.SetRules(decider(rules), rules.Static)
}

// decider makes decisions of rules those of forwards.
func decider(rules config.Rules) forward.Rules {
	return func(vm string, l portwatch.Listener) forward.Decision {
		d := rules.Decide(vm, l)
		out := forward.Decision{Host: d.Host, Rule: d.Rule, Reason: d.Reason}
		switch {
		case d.Ignored:
			out.Verdict = control.Ignored
		case d.HostSocket != "":
			out = forward.Decision{Verdict: control.Denied, Rule: d.Rule, Reason: "forwarding to a unix socket is not supported"}
		}
		return out
	}
}
