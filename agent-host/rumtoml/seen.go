package rumtoml

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// seenPort is a port that listens in VMs.
type seenPort struct {
	port  uint16
	host  uint16 // the one proposed: another than port where that is low
	proto string
	by    []string // VMs and programs, safe to print
}

func describeSeen(vm, process string) string {
	if process == "" {
		return output.Clean(vm)
	}
	return output.Clean(process) + " in " + output.Clean(vm)
}

// addSeen keeps one entry for each port, in their order.
func addSeen(seen []seenPort, p seenPort) []seenPort {
	i, found := slices.BinarySearchFunc(seen, p, func(a, b seenPort) int {
		if a.port != b.port {
			return int(a.port) - int(b.port)
		}
		return strings.Compare(a.proto, b.proto)
	})
	if found {
		seen[i].by = append(seen[i].by, p.by...)
		slices.Sort(seen[i].by) // the agent tells them in the order in which they were announced
		return seen
	}
	return slices.Insert(seen, i, p)
}

func (p seenPort) String() string {
	by := p.by
	const most = 3
	if len(by) > most {
		by = append(slices.Clone(by[:most]), "others")
	}
	return fmt.Sprintf("%d/%s (%s)", p.port, output.Clean(p.proto), strings.Join(by, ", "))
}

// leaveApart moves what is proposed for low ports away from the host ports of the others.
func leaveApart(seen []seenPort) {
	taken := map[uint16]bool{}
	for _, s := range seen {
		if s.host == s.port {
			taken[s.host] = true
		}
	}
	for i := range seen {
		s := &seen[i]
		if s.host == s.port {
			continue
		}
		for taken[s.host] {
			s.host++
		}
		taken[s.host] = true
	}
}

// See has the file tell of the ports of VMs, and returns how many they are.
func (p *Plan) See(st status.Status) int {
	p.seen = seenPorts(st)
	return len(p.seen)
}

// seenPorts are the ports of VMs that are forwarded or might be, once each.
func seenPorts(st status.Status) []seenPort {
	var seen []seenPort
	for _, vm := range st.VMs {
		for _, f := range vm.Forwards {
			if len(f.Guest) == 0 {
				continue
			}
			host, low := hostForLow(f)
			if f.State == status.Ignored && !(low && f.Rule == config.DefaultRule) {
				continue
			}
			if !low {
				host = f.Port
			}
			seen = addSeen(seen, seenPort{port: f.Port, host: host, proto: f.Proto, by: []string{describeSeen(vm.Name, f.Process)}})
		}
	}
	leaveApart(seen)
	return seen
}

// hostForLow proposes a host port for what stays in the guest for its low port alone.
func hostForLow(f status.Forward) (host uint16, low bool) {
	addr, err := netip.ParseAddrPort(f.Guest[0])
	if err != nil {
		return 0, false // a socket's path
	}
	return config.HostForLow(portlist.Listener{Proto: f.Proto, Addr: netip.AddrPortFrom(addr.Addr(), f.Port)})
}
