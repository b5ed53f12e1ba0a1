package forward

import (
	"cmp"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// tellAfter joins changes of what the guest is told.
const tellAfter = 100 * time.Millisecond

// become notes the state of a binding. It needs table.mu.
func (b *binding) become(state, reason string) {
	if b.state != state {
		b.vm.changed()
	}
	b.state, b.reason = state, reason
}

// changed has the guest told what became of its ports. It needs table.mu.
func (v *VM) changed() {
	v.untold = true
	if t := v.table; !t.telling && !t.closed {
		t.telling = true
		t.wg.Go(t.teller)
	}
}

// teller tells guests what became of their ports until there is nothing to tell.
func (t *Table) teller() {
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-time.After(tellAfter):
		}
		t.mu.Lock()
		t.telling = false
		for _, v := range t.vms {
			if v.untold {
				v.untold, t.telling = false, true
				v.tell()
			}
		}
		more := t.telling
		t.mu.Unlock()
		if !more {
			return
		}
	}
}

// tell needs table.mu.
func (v *VM) tell() {
	l := v.route.Load().link
	if l == nil || l.Tell == nil {
		return // the next link hears it
	}
	if ports := v.fates(); !slices.Equal(ports, v.told) || l != v.toldTo {
		v.told, v.toldTo = ports, l
		l.Tell(ports)
	}
}

// fates are what became of the ports that listen in the guest, each once: the best, where
// it is several services. It needs table.mu.
func (v *VM) fates() []wire.PortState {
	fates := map[string]wire.PortFate{
		control.Active: wire.PortForwarded, control.Claim: wire.PortTaken,
		control.Ignored: wire.PortKept, control.Denied: wire.PortDenied,
	}
	all := make([]wire.PortState, 0, len(v.forwards))
	for _, f := range v.forwards {
		if f.key.socket != "" || f.expected || f.held {
			continue
		}
		p := wire.PortState{Proto: f.key.proto, Port: f.key.port, Fate: fates[f.state()]}
		if f.main != nil && len(f.main.wanted) > 0 {
			p.Host = f.main.wanted[0].addr.Port()
		}
		all = append(all, p)
	}
	rank := func(p wire.PortState) int { return slices.Index(order, p.Fate) }
	slices.SortFunc(all, func(a, b wire.PortState) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Host, b.Host))
	})
	return slices.CompactFunc(all, func(a, b wire.PortState) bool { return a.Proto == b.Proto && a.Port == b.Port })
}

// order is that of fates, the best first.
var order = []wire.PortFate{wire.PortForwarded, wire.PortTaken, wire.PortDenied, wire.PortKept}
