package hostagent

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/portwatch"
)

// SetRules replaces the rules. Forwards that stay the same keep their listeners
// and connections.
func (a *Agent) SetRules(rules config.Rules) {
	a.table.SetRules(decider(rules), rules.Static, sockets(rules))
}

// decider makes decisions of rules those of forwards.
func decider(rules config.Rules) forward.Rules {
	return func(vm string, l portwatch.Listener) forward.Decision {
		d := rules.Decide(vm, l)
		out := forward.Decision{Host: d.Host, HostSocket: inHome(d.HostSocket), Rule: d.Rule, Reason: d.Reason}
		if d.Ignored {
			out.Verdict = control.Ignored
		}
		return out
	}
}

// sockets makes rules about unix sockets of guests those of forwards.
func sockets(rules config.Rules) forward.Sockets {
	return func(vm string) []forward.GuestSocket {
		var out []forward.GuestSocket
		for _, r := range rules.Sockets(vm) {
			d := forward.Decision{HostSocket: inHome(r.HostSocket), Rule: r.Name}
			for _, ip := range r.HostIP {
				d.Host = append(d.Host, netip.AddrPortFrom(ip, r.Host.First))
			}
			out = append(out, forward.GuestSocket{Path: r.GuestSocket, Decision: d})
		}
		return out
	}
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
