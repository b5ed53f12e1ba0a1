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
	a.table.SetReverse(reverses(rules))
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
			d := forward.Decision{Host: on(r.HostIP, r.Host.First), HostSocket: inHome(r.HostSocket), Rule: r.Name}
			out = append(out, forward.GuestSocket{Path: r.GuestSocket, Decision: d})
		}
		return out
	}
}

// reverses makes reverse rules those of forwards.
func reverses(rules config.Rules) forward.Reverses {
	return func(vm string) []forward.ReverseRule {
		var out []forward.ReverseRule
		for _, r := range rules.Reverses(vm) {
			for n := range max(1, r.Guest.Len()) {
				rule := forward.ReverseRule{Rule: r.Name, GuestSocket: r.GuestSocket, HostSocket: inHome(r.HostSocket)}
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
