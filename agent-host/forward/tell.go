package forward

import (
	"net/netip"

	"github.com/rum-vm/rum-agent/agent-host/forward/told"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// become notes the state of a binding. It needs table.mu.
func (b *binding) become(state, reason string) {
	if b.state != state {
		b.vm.changed()
		if !b.own {
			b.moved()
		}
	}
	b.state, b.reason = state, reason
}

// changed notes that the VM's ports, or the state of one, are not what they were, and has
// the guest told. It needs table.mu.
func (v *VM) changed() {
	v.untold = true
	v.chosen.Stale()
	if t := v.table; !t.telling && !t.mu.Closed() {
		t.telling = true
		t.wg.Go(t.teller)
	}
}

// teller tells guests what became of their ports until there is nothing to tell.
func (t *Table) teller() {
	told.Repeat(t.ctx, func() (more bool) {
		var vms []*VM
		t.mu.Lock()
		for _, v := range t.vms {
			if v.untold {
				v.untold = false
				vms = append(vms, v)
			}
		}
		t.telling = len(vms) > 0
		t.mu.Unlock()
		for _, v := range vms {
			v.tell()
		}
		return len(vms) > 0
	})
}

// tell is the teller's alone.
func (v *VM) tell() {
	v.table.mu.Lock()
	l := v.guest.Route().Link
	if l == nil || l.Tell == nil {
		v.table.mu.Unlock()
		return // the next link hears it
	}
	all := v.portStates()
	v.table.mu.Unlock()
	v.told.Tell(l, all)
}

// portStates are what became of the ports that listen in the guest. It needs table.mu.
func (v *VM) portStates() []wire.PortState {
	all := make([]wire.PortState, 0, v.forwards.Len()+v.room.Len())
	for _, f := range v.forwards.All() {
		if f.key.Socket != "" || f.expected || f.held {
			continue
		}
		var at netip.AddrPort
		if len(f.main.wanted) > 0 {
			at = f.main.wanted[0].Addr
		}
		all = append(all, wire.PortState{Proto: f.key.Proto, Port: f.key.Port, Outcome: told.Outcome(f.state(), "", at.Addr()), Host: at.Port()})
	}
	for r := range v.room.Rows() {
		if r.Key.Socket == "" && r.Listens() {
			all = append(all, wire.PortState{Proto: r.Key.Proto, Port: r.Key.Port, Outcome: told.Outcome(r.State(), r.Reason(), netip.Addr{}), Host: r.HostPort()})
		}
	}
	return all
}
