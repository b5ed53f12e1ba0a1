package setup

import (
	"cmp"
	"net/netip"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/portwatch/nat"
)

// natPorts reads the host ports that the kernel's packet filter translates to addresses which wanted accepts. A user who
// may not read the rules gets none.
func natPorts(wanted func(netip.Addr) bool) []libvirt.HostPort {
	all, _ := nat.ReadAll() // what can be read is a note, and no plan depends on it
	var ports []libvirt.HostPort
	for _, t := range all {
		if wanted(t.To.Addr()) {
			ports = append(ports, libvirt.HostPort{By: "dnat", Proto: cmp.Or(t.Proto, "any"), Addr: t.Addr, First: t.First, Last: t.Last, Guest: t.To})
		}
	}
	return ports
}
