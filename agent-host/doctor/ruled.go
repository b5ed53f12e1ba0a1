package doctor

import (
	"net/netip"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch"
)

// maxRuled bounds how many rules' host ports are looked at: each look reads the whole socket table.
const maxRuled = 50

// ruledPorts tells of programs that have host ports which rules name, while no agent runs that could have them. Of a
// range some port is expected to be taken now and then.
func ruledPorts(rules config.Rules) (all []status.Check) {
	looked := 0
	for i := range rules {
		r := &rules[i]
		if r.Ignore || r.Reverse || r.NextFree || r.Host.Len() != 1 || looked == maxRuled {
			continue
		}
		looked++
		if at, holder := holderOf(r); holder != "" {
			all = append(all, ill(nameConfig, "end what has it there, or give the rule another host port", "%v, which the rule at %s wants, is held by %s", at, r.Name, holder))
		}
	}
	return all
}

// holderOf is who has the host port of a rule; empty for nobody.
func holderOf(r *config.Rule) (at netip.AddrPort, holder string) {
	for _, proto := range []string{"tcp", "udp"} {
		for _, ip := range r.HostIP {
			at = netip.AddrPortFrom(ip, r.Host.First)
			if !r.Proto.Has(proto) {
				continue
			}
			if holder = portwatch.Holder(proto, at); holder != "" {
				return at, holder
			}
		}
	}
	return at, ""
}
