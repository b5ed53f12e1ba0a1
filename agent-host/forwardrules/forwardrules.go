// Package forwardrules makes rules of a file those of forwards.
package forwardrules

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/reverse"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Decide tells what becomes of a listener of a VM.
func Decide(rules config.Rules, vm string, l portlist.Listener) policy.Decision {
	d := rules.Decide(vm, l)
	out := decision(d)
	for _, a := range d.Also {
		out.Also = append(out.Also, decision(a))
	}
	return out
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

// Sockets are the rules about unix sockets of a VM.
func Sockets(rules config.Rules, vm string) (out []policy.GuestSocket) {
	for _, r := range rules.Sockets(vm) {
		d := policy.Decision{
			Host: on(r.HostIP, r.Host.First), HostSocket: inHome(r.HostSocket), ProxyProtocol: r.ProxyProtocol, Hold: r.Hold,
			NextFree: r.NextFree, Open: r.Open,
			Rule: r.Name, Label: r.Label,
		}
		out = append(out, policy.GuestSocket{Path: r.GuestSocket, Decision: d})
	}
	return out
}

// Reverses are the reverse rules for a VM.
func Reverses(rules config.Rules, vm string) (out []reverse.Rule) {
	for _, r := range rules.Reverses(vm) {
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
