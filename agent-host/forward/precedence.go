package forward

import (
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
)

// In one VM, what a rule names comes before what is forwarded because no rule names
// it, whichever was there first, and also while the rule's forward has to wait for
// others. Between VMs who comes first has an address.

// takePrecedence takes from the VM's automatic forwards what b's rule asks for.
func (t *Table) takePrecedence(b *binding) {
	if b.own || b.decision.Automatic {
		return
	}
	for _, h := range b.wanted {
		b.vm.named.Add(b, h)
		for _, at := range t.contests.Held(h.Spot()) {
			if r := t.contests.Holder(at); r != nil && r.vm == b.vm {
				t.giveWay(r)
			}
		}
	}
}

// endPrecedence ends what takePrecedence began.
func (t *Table) endPrecedence(b *binding) {
	if b.own || b.decision.Automatic {
		return
	}
	for _, h := range b.wanted {
		b.vm.named.Drop(b, h)
	}
}

// setAutomatic takes over whether a rule names a forward that stays the same otherwise.
func (t *Table) setAutomatic(f *forward, automatic bool) {
	b := f.main
	if b == nil || f.decision.Automatic == automatic {
		f.decision.Automatic = automatic
		return
	}
	t.endPrecedence(b)
	f.decision.Automatic = automatic
	t.takePrecedence(b)
	t.giveWay(b)
	t.freed(b)
}

// giveWay makes a binding a claim if it has what a rule of its VM names.
func (t *Table) giveWay(b *binding) {
	if b.open == nil || !slices.ContainsFunc(b.wanted, func(h host.Addr) bool { return b.outranking(h) != nil }) {
		return
	}
	t.remove(b)
	t.bind(b, false) // which fails, and says why
	t.claim(b)
}

// outranking is the rule's binding of the VM to which b leaves an address, if any.
func (b *binding) outranking(h host.Addr) *binding {
	if b.own || !b.decision.Automatic {
		return nil
	}
	return b.vm.named.First(h)
}
