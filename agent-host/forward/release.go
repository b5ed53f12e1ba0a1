package forward

import (
	"cmp"
	"maps"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Release gives a port of the host, at whichever address, back to programs that want it there:
// the forwards that have or want it, of the VM of that name or with an empty one of all, stay in
// the guest until nothing listens on their ports there any more and something does anew. Their
// connections go on. It returns those forwards.
func (t *Table) Release(vm, proto string, port uint16) (all []status.GivenBack) {
	t.decideAnew(func() (concerned []*VM) {
		for _, v := range t.vms {
			if vm != "" && v.name != vm {
				continue
			}
			was := len(all)
			for k, f := range v.forwards.All() {
				if k.Proto == proto && f.isAt(port) {
					all = append(all, v.release(f))
				}
			}
			if len(all) > was {
				concerned = append(concerned, v)
			}
		}
		return concerned
	})
	slices.SortFunc(all, func(a, b status.GivenBack) int { return cmp.Or(cmp.Compare(a.VM, b.VM), cmp.Compare(a.Port, b.Port)) })
	return all
}

// isAt reports whether a forward has or wants a port of the host, or would have it at the VM's own
// address in the place of another.
func (f *forward) isAt(port uint16) bool {
	for _, b := range f.bindings() {
		for _, h := range b.wanted {
			if h.Path == "" && h.Addr.Port() == port {
				return true
			}
		}
	}
	return f.key.Port == port && !f.decision.IsSecond() && f.vm.owns[f.key.Anywhere()] != nil
}

// release needs table.mu.
func (v *VM) release(f *forward) status.GivenBack {
	v.released.Add(f.key, f.decision, host.AddrPorts(f.main.wanted))
	v.stale.Add(f.service.Listeners())
	st := f.status()
	f.moved()
	e := f.event(events.Released, "")
	e.Host = st.Host
	v.table.cfg.Events.Publish(e)
	f.published = "" // and it is not told to have stopped
	return status.GivenBack{VM: v.name, Proto: st.Proto, Port: st.Port, Host: st.Host, Process: st.Process}
}

// policy is what counts for the VM's ports. It needs table.mu.
func (v *VM) policy() policy.Policy { return v.table.policy.Without(maps.Clone(v.released)) }
