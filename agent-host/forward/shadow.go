package forward

import (
	"fmt"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/suggest"
)

// Where a VM has several services on one port, at different addresses, one host
// address cannot mean them all. It means the one that the guest itself finds at
// localhost; among others, the one that came first.

// preferred is the binding of the VM that b gives way to; nil for none.
func (b *binding) preferred() *binding {
	if !b.key.Addr.IsValid() {
		return nil
	}
	k := b.key.Localhost()
	if b.own {
		return b.vm.owns[k.Anywhere()]
	}
	if f := b.vm.forwards.Get(k); f != nil && (!f.decision.Automatic || b.decision.Automatic) {
		return f.main
	}
	return nil
}

// displace takes from other services on the port what is b's by preference.
func (t *Table) displace(b *binding) {
	for _, h := range b.wanted {
		if r := t.contests.Holder(h); r != nil && r.vm == b.vm && r.preferred() == b {
			t.remove(r)
			if !t.bind(r, false) {
				t.claim(r)
			}
		}
	}
}

// shadowedBy says what an address of the host means instead of b, and what would
// reach it.
func (b *binding) shadowedBy(r *binding, at host.Addr) string {
	f := b.forward
	if at.Addr.Port() != f.key.Port {
		// A rule sent it there already.
		return fmt.Sprintf("%v means %v in the guest (%s): give the rule of one of them another host", at, r.where(), r.decision.Rule)
	}
	proto := ""
	if f.key.Proto != "tcp" {
		proto = fmt.Sprintf(", proto = %q", f.key.Proto)
	}
	return fmt.Sprintf("%v means %v in the guest; a rule reaches %v: guest = %d, guest_ip = %q, host = %d%s",
		at, r.where(), f.where(), f.key.Port, f.service.Listeners()[0].Addr.Addr(), f.suggestion(), proto)
}

// suggestion is a port of the host that a rule may send this forward to.
func (f *forward) suggestion() int {
	if f.suggested == (suggest.Port{}) {
		f.suggested = f.vm.suggested.For(f, f.key.Proto, f.key.Port, func(port uint16) bool {
			here := policy.Key{Proto: f.key.Proto, Port: port, Decision: f.key.Decision}
			return f.vm.forwards.Get(here) != nil || f.vm.room.Row(here) != nil
		})
	}
	return f.suggested.Port
}

// where is what listens in the guest, or its first address.
func (f *forward) where() string {
	return f.service.Listeners()[0].Addr.String()
}
