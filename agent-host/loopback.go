package hostagent

import (
	"cmp"
	"net/netip"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
)

// setKnown says which VMs there are at a source, by their ids, whether or not they
// run and are served. None of them is given the loopback address of another.
func (a *Agent) setKnown(source string, ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = make(map[string][]string)
	}
	a.known[source] = ids
	a.giveLoopbacks()
}

// giveLoopbacks gives every VM the address that is its own among all that are
// known. It changes only when the ids of two VMs lead to one address and the other
// appears or goes. It needs a.mu.
func (a *Agent) giveLoopbacks() {
	var ids []string
	for _, known := range a.known {
		ids = append(ids, known...)
	}
	for _, v := range a.vms {
		ids = append(ids, v.id())
	}
	addrs := policy.Loopbacks(ids)
	for _, v := range a.vms {
		v.setLoopback(addrs[v.id()])
	}
}

func (v *vm) id() string { return cmp.Or(v.ID, v.Name) }

func (v *vm) setLoopback(ip netip.Addr) {
	if was := v.forwards.Loopback(); was.IsValid() && was != ip {
		v.log.Warn("the VM's loopback address changes", "from", was, "to", ip)
	}
	v.forwards.SetLoopback(ip)
}
