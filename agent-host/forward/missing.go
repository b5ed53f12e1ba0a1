package forward

import (
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
	"github.com/rum-vm/rum-agent/agent-host/forward/turns"
)

// awaitMissing sees to it that addresses which this host does not have now are
// bound when it has them: IPv6 goes with a VPN, and comes back.
func (t *Table) awaitMissing(b *binding) {
	missing := b.missing()
	if len(missing) == 0 {
		return
	}
	b.reason = host.NoAddress(missing[0])
	t.partial[b] = true
	t.keepAddresses()
}

// missing are the wanted addresses that an open binding does not have.
func (b *binding) missing() (out []host.Addr) {
	for _, h := range b.wanted {
		if !b.listensOn(h) {
			out = append(out, h)
		}
	}
	return out
}

// keepAddresses sees to it that the host's addresses are looked at.
func (t *Table) keepAddresses() {
	if !t.looking {
		t.looking = true
		t.wg.Go(t.addressKeeper)
	}
}

// addressKeeper looks at the host's addresses when they change, for as long as a binding
// lacks one or may lose one.
func (t *Table) addressKeeper() {
	host.FollowAddresses(t.ctx, t.log, func() (more, blocked bool) {
		t.mu.Lock()
		ask := t.contests.Losable()
		t.mu.Unlock()
		gone := host.Gone(ask)
		for ip := range gone {
			t.log.Warn("this host has lost an address", "address", ip)
		}
		t.mu.InTurns(func(u turns.Turn) bool {
			if len(gone) > 0 && t.lose(gone, u) {
				return true
			}
			if len(t.partial) > 0 {
				t.host.NewRound()
				blocked = t.complete()
			}
			t.looking = len(t.partial)+len(t.contests.Losable()) > 0
			more = t.looking
			return false
		})
		return more, blocked
	})
}

// complete binds what is missing and has come back, and reports whether something is in the
// way at an address that has.
func (t *Table) complete() (blocked bool) {
	here := make(map[netip.Addr]bool)
	for b := range t.partial {
		if b.open == nil {
			delete(t.partial, b)
			continue
		}
		b.reason = ""
		for _, h := range b.missing() {
			ip := h.Addr.Addr()
			if _, asked := here[ip]; !asked {
				here[ip] = host.HasAddress(ip)
			}
			reason := host.NoAddress(h)
			if here[ip] {
				reason = t.add(b, h)
				blocked = blocked || reason != ""
			}
			if b.reason == "" {
				b.reason = reason
			}
		}
		if b.reason == "" {
			delete(t.partial, b)
			t.log.Info("port open", "vm", b.vm.name, "port", b.key.Port, "host", b.hosts(), "process", b.process)
		}
	}
	return blocked
}

// add binds one more address of an open binding, and says why if it cannot.
func (t *Table) add(b *binding, h host.Addr) (reason string) {
	err := t.obstacle(b, h)
	if err == nil && t.room.Full() {
		err = room.ErrShare
	}
	var l host.Listener
	if err == nil {
		l, err = t.host.Open(h, b.vm.name)
	}
	if err != nil {
		return host.Why(h, err)
	}
	if err := b.serve(l.Closer, b.open.done); err != nil {
		t.host.CloseAll(l)
		return err.Error()
	}
	b.open.listeners[slices.Index(b.wanted, h)] = l
	t.occupy(h, b)
	return ""
}

// lose takes from bindings what has gone, for one turn, and makes them what they
// would be if they had never had it. It reports whether there is more to do.
func (t *Table) lose(gone map[netip.Addr]bool, u turns.Turn) (more bool) {
	for h, b := range t.contests.Holders() {
		if !host.CanGo(h) || !gone[h.Addr.Addr()] {
			continue
		}
		if b.canDoWithout(h) && len(b.missing()) < len(b.wanted)-1 {
			l := &b.open.listeners[slices.Index(b.wanted, h)]
			t.host.CloseAll(*l)
			*l = host.Listener{}
			t.vacate(h)
			t.awaitMissing(b)
		} else {
			t.waitAgain(b, host.NoAddress(h))
		}
		if u.Over() {
			return true
		}
	}
	return false
}

// canDoWithout reports whether a binding is open while this host lacks one of its
// addresses. On a host without IPv6, localhost is 127.0.0.1 alone, and everything
// is IPv4, until it has IPv6 again.
func (b *binding) canDoWithout(h host.Addr) bool {
	return h.Addr.Addr().Is6() && len(b.wanted) > 1
}
