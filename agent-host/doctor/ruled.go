package doctor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// maxRange is how long a range is whose every port is expected to be free: a longer one means whatever is there.
const maxRange = 1000

// ruledPorts tells of other programs that have host ports which rules name, whether or not anything listens in a guest
// yet. What forwards have or wait for is told with them. All rules are held against one look at what listens here.
func (x *exam) ruledPorts(ctx context.Context) (all []status.Check) {
	ours, ok := x.agentsOwn(ctx)
	if !ok {
		return nil
	}
	var scanner portwatch.Scanner
	defer scanner.Close()
	listeners, err := scanner.Scan()
	if err != nil {
		return nil // which says nothing of any port
	}
	said, more := make(map[netip.AddrPort]bool), 0
	for _, r := range x.rules() {
		for _, l := range listeners {
			at, wants := wanted(&r, l)
			if !wants || said[at] || ours.has(at, l) {
				continue
			}
			said[at] = true
			if len(all) == maxPorts {
				more++
				continue
			}
			holder := cmp.Or(portwatch.Holder(l.Proto, at), l.Process, "another program")
			all = append(all, ill(nameConfig, "end what has it there, or give the rule another host port", "%v, which the rule at %s wants, is held by %s", at, r.Name, holder))
		}
	}
	if more > 0 {
		all = append(all, ill(nameConfig, "see them with: ss -lntup", "%d more host ports that rules want are held by other programs", more))
	}
	return all
}

// wanted is the address that a rule wants and a listener of this host has, or keeps by a wildcard.
func wanted(r *config.Rule, l portlist.Listener) (at netip.AddrPort, wants bool) {
	if r.Ignore || r.Reverse || r.NextFree || r.Host.Len() > maxRange || !r.Proto.Has(l.Proto) || !r.Host.Has(l.Addr.Port()) {
		return at, false
	}
	for _, ip := range r.HostIP {
		if keeps(l, ip) {
			return netip.AddrPortFrom(ip, l.Addr.Port()), true
		}
	}
	return at, false
}

// keeps reports whether a listener keeps others from an address on its port.
func keeps(l portlist.Listener, ip netip.Addr) bool {
	theirs, both := l.Addr.Addr(), l.Addr.Addr().Is4() == ip.Is4()
	switch {
	case theirs == ip:
		return true
	case both:
		return theirs.IsUnspecified() || ip.IsUnspecified()
	}
	return theirs.Is6() && theirs.IsUnspecified() && !l.V6Only // which takes IPv4 too
}

// own is what the agent that runs has of the host.
type own struct {
	pid   string // at the end of a process's name; empty where no agent runs
	addrs map[netip.AddrPort]bool
}

// has reports whether an address is the agent's own, or told of with a forward.
func (o own) has(at netip.AddrPort, l portlist.Listener) bool {
	return o.addrs[at] || o.pid != "" && strings.HasSuffix(l.Process, o.pid)
}

// agentsOwn is what the agent has. It is not known of one whose sockets this user may not look at.
func (x *exam) agentsOwn(ctx context.Context) (o own, ok bool) {
	if x.agentErr != nil {
		return o, true
	}
	st, err := ask.Status(ctx, x.Socket, status.Query{}) // of all VMs
	if err != nil {
		return o, false
	}
	if _, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", st.PID)); err != nil {
		return o, false
	}
	o = own{pid: fmt.Sprintf("[%d]", st.PID), addrs: make(map[netip.AddrPort]bool)}
	for _, vm := range st.VMs {
		for _, f := range vm.Forwards {
			for _, text := range slices.Concat(f.Host, f.InsteadOf, f.Listening) {
				if at, err := netip.ParseAddrPort(text); err == nil {
					o.addrs[at] = true
				}
			}
		}
	}
	return o, true
}

// rules are those of all files that count: of the user, and of projects.
func (x *exam) rules() (all config.Rules) {
	if x.agentErr == nil {
		if c := x.agent.Config; c.Found {
			if file, err := userconfig.Open(c.File, ""); err == nil {
				all = file.Current().Rules
			}
		}
		for _, c := range x.agent.Projects {
			if c.Found && (x.VM == "" || c.VM == x.VM) {
				all = slices.Concat(all, configfile.OpenProject(c.File, "").Current().Rules)
			}
		}
		return all
	}
	if file, err := userconfig.Open("", ""); err == nil {
		all = file.Current().Rules
	}
	w := projects.Watcher{Dir: projects.Dir(), Log: slog.New(slog.DiscardHandler)}
	found, _ := w.Scan()
	for _, p := range found {
		if x.VM == "" || p.Domain == x.VM {
			all = slices.Concat(all, p.File.Current().Rules)
		}
	}
	return all
}
