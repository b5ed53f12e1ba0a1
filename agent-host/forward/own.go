package forward

import (
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/forward/turns"
)

// Loopback is the VM's own host address; the zero Addr for none.
func (v *VM) Loopback() netip.Addr {
	v.table.mu.Lock()
	defer v.table.mu.Unlock()
	return v.loopback
}

// SetLoopback gives the VM a host address of its own, in addition to those of the
// rules: there, every TCP and UDP port that is forwarded has the number that it
// has in the guest, and its listener is opened apart from the others, so that a
// claim on one address leaves the other alone. The zero Addr is none.
//
// What stays in the guest is not there, and neither is what a rule puts on a unix
// socket, which may be for the sake of the socket's permissions. A rule that names
// an address comes before: if it has all addresses of the host, or this one, the
// port of the own address is its.
func (v *VM) SetLoopback(ip netip.Addr) {
	t := v.table
	begun := false
	t.mu.InTurns(func(u turns.Turn) bool {
		if !begun {
			if v.closed || v.loopback == ip {
				return false
			}
			begun = true
			v.loopback = ip
			for _, f := range v.forwards.All() {
				if f.own != nil {
					t.remove(f.own)
					f.own = nil
				}
			}
			clear(v.owns)
		}
		if v.loopback != ip || t.handOver(u) {
			return v.loopback == ip
		}
		t.host.NewRound()
		for _, f := range v.forwards.All() {
			if t.openOwn(f) && u.Over() {
				return true
			}
		}
		return false
	})
	t.mu.InTurns(t.handOver)
}

// openOwn gives a forward that lacks it the VM's own address, and reports whether it does.
func (t *Table) openOwn(f *forward) (does bool) {
	if f.own == nil {
		if f.own = f.ownBinding(); f.own != nil {
			t.openOrClaim(f.own)
			return true
		}
	}
	return false
}

// ownBinding is a binding to the VM's own address; nil if there is none, if the rule's
// addresses have it in them, or if another place of the same listeners has it: what is
// open there stays so when places come and go.
func (f *forward) ownBinding() *binding {
	at := f.key.Anywhere()
	if !f.vm.loopback.IsValid() || f.decision.IsSecond() || f.vm.owns[at] != nil || f.key.Socket != "" || f.decision.HostSocket != "" {
		return nil
	}
	own := host.Addr{Proto: f.key.Proto, Addr: netip.AddrPortFrom(f.vm.loopback, f.key.Port)}
	if slices.Contains(f.main.wanted, own) || slices.Contains(f.main.wanted, host.Wildcard(own)) {
		return nil
	}
	b := newBinding(f, true, own)
	f.vm.owns[at] = b
	return b
}

// overrule takes from VMs' own addresses what a rule asks for, for as long as it
// does, also while it has to wait for others.
func (t *Table) overrule(b *binding) {
	if b.own {
		return
	}
	for _, h := range b.wanted {
		if !host.Contests(h) {
			continue
		}
		t.overrules.Add(b, h)
		for _, at := range t.contests.Held(h.Spot()) {
			if own := t.contests.Holder(at); own.own && (at == h || host.Wildcard(at) == h) {
				t.remove(own)
				t.bind(own, false) // which fails, and says why
				t.claim(own)
			}
		}
	}
}

// yield ends what overrule began.
func (t *Table) yield(b *binding) {
	if b.own {
		return
	}
	for _, h := range b.wanted {
		if host.Contests(h) {
			t.overrules.Drop(b, h)
		}
	}
}
