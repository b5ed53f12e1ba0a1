package forward

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/portwatch"
)

// wanted are the forwards that a VM should have, and their order.
type wanted struct {
	groups map[key]*group
	order  []key
}

// group is the listeners that make up one forward.
type group struct {
	decision Decision
	guest    []netip.AddrPort
	process  string
	expected bool // static, and nothing is seen to listen there
}

// SetRules replaces the rules of all VMs. Forwards that stay the same keep their
// listeners and connections; of those that go, the listeners are closed before
// others are opened, and connections go on until they end by themselves. nil
// means what it means in a [Config].
func (t *Table) SetRules(rules Rules, static Static, sockets Sockets) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.setRules(rules, static, sockets)
	wants := make([]wanted, len(t.vms))
	for i, v := range t.vms {
		wants[i] = v.decide()
		v.withdrawBut(wants[i])
	}
	// What moved from one VM to another is free by now.
	t.retryClaims()
	for i, v := range t.vms {
		v.place(wants[i])
	}
	t.keepClaims()
}

func (t *Table) setRules(rules Rules, static Static, sockets Sockets) {
	t.rules, t.static, t.sockets = rules, static, sockets
	if rules == nil {
		t.rules = SamePort
	}
	if static == nil {
		t.static = func(string) []portwatch.Listener { return nil }
	}
	if sockets == nil {
		t.sockets = func(string) []GuestSocket { return nil }
	}
}

// decide asks the rules about every listener and groups those that go together.
// The order is that of the listeners.
func (v *VM) decide() wanted {
	w := wanted{groups: make(map[key]*group)}
	if !v.started {
		return w
	}
	for _, l := range v.announced {
		if v.table.isOwn(l) {
			continue
		}
		g := w.group(v, l)
		if !slices.Contains(g.guest, l.Addr) {
			g.guest = append(g.guest, l.Addr)
		}
		g.process = cmp.Or(g.process, l.Process)
	}
	for _, l := range v.table.static(v.name) {
		if g := w.group(v, l); len(g.guest) == 0 || g.expected {
			g.guest, g.expected = append(g.guest, l.Addr), true
		}
	}
	for _, s := range v.table.sockets(v.name) {
		w.at(key{proto: protoUnix, socket: s.Path, decision: s.Decision.key()}, s.Decision)
	}
	return w
}

func (w *wanted) group(v *VM, l portwatch.Listener) *group {
	d := v.table.rules(v.name, l)
	return w.at(key{proto: l.Proto, port: l.Addr.Port(), decision: d.key()}, d)
}

func (w *wanted) at(k key, d Decision) *group {
	g := w.groups[k]
	if g == nil {
		g = &group{decision: d}
		w.groups[k] = g
		w.order = append(w.order, k)
	}
	return g
}

// withdrawBut takes all other forwards off the host. It reports whether that
// released an address.
func (v *VM) withdrawBut(w wanted) (released bool) {
	for k, f := range v.forwards {
		if w.groups[k] == nil {
			released = v.table.withdraw(f) || released
			delete(v.forwards, k)
		}
	}
	return released
}

// place opens the forwards that are not there yet and describes all anew.
func (v *VM) place(w wanted) {
	for _, k := range w.order {
		g := w.groups[k]
		f := v.forwards[k]
		if f != nil {
			f.describe(g)
			continue
		}
		f = newForward(v, k, g)
		v.forwards[k] = f
		if g.decision.Verdict != "" {
			v.table.log.Debug("guest port is not forwarded", "vm", v.name, "proto", k.proto, "port", k.port, "reason", g.decision.Reason)
		}
		for _, b := range f.bindings() {
			v.table.place(b)
		}
	}
}
