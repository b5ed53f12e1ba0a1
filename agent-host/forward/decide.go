package forward

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/portwatch"
)

// wanted are the forwards that a VM should have, and their order.
type wanted struct {
	groups map[key]*group
	order  []key
	first  map[key]key // of what listens on a port, whatever its address
	// renamed are keys in order that are others by now.
	renamed map[key]key
}

// group is the listeners that make up one forward.
type group struct {
	decision Decision
	guest    []portwatch.Listener // no address twice
	process  string
	expected bool // static, and nothing is seen to listen there
}

// SetRules replaces the rules of all VMs. Forwards that stay the same keep their
// listeners and connections; of those that go, the listeners are closed before
// others are opened, and connections go on until they end by themselves. nil
// means what it means in a [Config].
func (t *Table) SetRules(rules Rules, static Static, sockets Sockets) {
	t.decideAnew(func() []*VM {
		t.setRules(rules, static, sockets)
		return slices.Clone(t.vms)
	})
}

// decideAnew changes rules or what is announced, and makes the forwards of the
// VMs concerned what is wanted then: those that go first, so that what moves
// from one VM to another is free by then.
func (t *Table) decideAnew(change func() []*VM) {
	type plan struct {
		*VM
		wanted
		decided int
	}
	var plans []plan
	t.turn.Lock()
	t.mu.Lock()
	var vms []*VM
	if !t.closed {
		vms = change()
	}
	t.mu.Unlock()
	for _, v := range vms {
		v.decided++
		plans = append(plans, plan{v, v.decide(), v.decided})
	}
	t.turn.Unlock()

	inForce := func(p plan) bool { return !p.VM.closed && p.VM.decided == p.decided }
	for _, p := range plans {
		t.inTurns(func(until time.Time) bool { return inForce(p) && p.withdrawBut(p.wanted, until) })
	}
	t.inTurns(t.handOver)
	for _, p := range plans {
		t.inTurns(func(until time.Time) bool { return inForce(p) && p.place(&p.wanted, until) })
	}
	t.inTurns(t.handOver)
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
	w := wanted{groups: make(map[key]*group), first: make(map[key]key), renamed: make(map[key]key)}
	if !v.started {
		return w
	}
	for _, l := range v.announced {
		if v.table.isOwn(l) {
			continue
		}
		g := w.group(v, l)
		if !slices.ContainsFunc(g.guest, func(o portwatch.Listener) bool { return o.Addr == l.Addr }) {
			g.guest = append(g.guest, l)
		}
		g.process = cmp.Or(g.process, l.Process)
	}
	for _, l := range v.table.static(v.name) {
		d := v.table.rules(v.name, l)
		k := keyOf(l, d).localhost()
		if first, ok := w.first[k]; ok {
			w.rename(first, k)
			continue
		}
		g := w.at(k, d)
		g.guest, g.expected = append(g.guest, l), true
	}
	for _, s := range v.table.sockets(v.name) {
		w.at(key{proto: protoUnix, socket: s.Path, decision: s.Decision.key()}, s.Decision)
	}
	for i, k := range w.order {
		if to, ok := w.renamed[k]; ok {
			w.order[i] = to
		}
	}
	// What is localhost comes first, so that nothing has to give way to it.
	slices.SortStableFunc(w.order, func(a, b key) int {
		return cmp.Compare(min(a.addr.BitLen(), 1), min(b.addr.BitLen(), 1))
	})
	return w
}

func (w *wanted) group(v *VM, l portwatch.Listener) *group {
	d := v.table.rules(v.name, l)
	k := keyOf(l, d)
	if _, ok := w.first[k.localhost()]; !ok {
		w.first[k.localhost()] = k
	}
	return w.at(k, d)
}

// rename puts what listens on a port in the place of what is expected there, if
// nothing else does. A static forward stays the same whatever its server's address.
func (w *wanted) rename(from, to key) {
	if w.groups[to] != nil {
		return
	}
	w.groups[to] = w.groups[from]
	delete(w.groups, from)
	w.renamed[from] = to
}

func keyOf(l portwatch.Listener, d Decision) key {
	k := key{proto: l.Proto, port: l.Addr.Port(), decision: d.key()}
	ip := l.Addr.Addr()
	if d.Verdict == "" && !ip.IsUnspecified() && ip != loopback4 && ip != loopback6 {
		k.addr = ip
	}
	return k
}

// localhost is the key of the forward that comes before all others on the port.
func (k key) localhost() key {
	k.addr = netip.Addr{}
	return k
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

// withdrawBut takes all other forwards off the host, for one turn. It reports
// whether there are more.
func (v *VM) withdrawBut(w wanted, until time.Time) (more bool) {
	for k, f := range v.forwards {
		if w.groups[k] != nil {
			continue
		}
		v.table.withdraw(f)
		delete(v.forwards, k)
		if time.Now().After(until) {
			return true
		}
	}
	return false
}

// place opens the forwards that are not there yet and describes all anew, for one
// turn. It reports whether there are more.
func (v *VM) place(w *wanted, until time.Time) (more bool) {
	v.table.round++
	for len(w.order) > 0 {
		if time.Now().After(until) {
			return true
		}
		k := w.order[0]
		w.order = w.order[1:]
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
	return false
}
