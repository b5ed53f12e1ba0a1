package forward

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// wanted are the forwards that a VM should have, and their order.
type wanted struct {
	groups map[key]*group
	order  []key
	// first is what listens on a port, whatever its address. It is known where something is
	// expected.
	first   map[key]key
	expects bool
	// renamed are keys in order that are others by now.
	renamed   map[key]key
	decisions map[string]string
}

// group is the listeners that make up one forward.
type group struct {
	decision Decision
	guest    []portlist.Listener // no address twice
	process  string
	uid      uint32 // of the guest, whose the first of them is
	expected bool   // static, and nothing is seen to listen there
	held     bool   // nothing is seen to listen there any more
}

// SetRules replaces the rules of all VMs. Forwards that stay the same keep their
// listeners and connections; of those that go, the listeners are closed before
// others are opened, and connections go on until they end by themselves. nil
// means what it means in a [Config].
func (t *Table) SetRules(rules Rules, static Static, sockets Sockets) {
	t.decideAnew(func() []*VM {
		t.setRules(rules, static, sockets)
		for _, v := range t.vms {
			v.stale.all = true
		}
		return slices.Clone(t.vms)
	})
}

// ports are some of a VM's, or all and its unix sockets.
type ports struct {
	all  bool
	some map[spot]bool
}

func (p ports) has(proto string, port uint16) bool {
	return p.all || p.some[spot{proto: proto, port: port}]
}

// of are the listeners on these ports.
func (p ports) of(all []portlist.Listener) []portlist.Listener {
	some := make([]portlist.Listener, 0, len(all))
	for _, l := range all {
		if p.has(l.Proto, l.Addr.Port()) {
			some = append(some, l)
		}
	}
	return some
}

// ofSorted is of for what is sorted, which it looks through for many ports only.
func (p ports) ofSorted(all []portlist.Listener) []portlist.Listener {
	if p.all {
		return append(make([]portlist.Listener, 0, len(all)), all...)
	}
	if len(p.some) > few {
		return p.of(all)
	}
	some := []portlist.Listener{}
	for _, s := range slices.SortedFunc(maps.Keys(p.some), spot.compare) {
		first, _ := slices.BinarySearchFunc(all, s, func(l portlist.Listener, s spot) int {
			return cmp.Or(cmp.Compare(l.Proto, s.proto), cmp.Compare(l.Addr.Port(), s.port), 1) // before the first of them
		})
		for _, l := range all[first:] {
			if l.Proto != s.proto || l.Addr.Port() != s.port {
				break
			}
			some = append(some, l)
		}
	}
	return some
}

const (
	// few is how many ports are decided on without taking turns with others.
	few = 64
	// many is of how many changes no list is kept: all ports are decided on.
	many = 256
)

// add adds the ports of listeners.
func (p *ports) add(listeners []portlist.Listener) {
	if p.all = p.all || len(listeners) > many; p.all {
		p.some = nil
		return
	}
	if p.some == nil {
		p.some = make(map[spot]bool)
	}
	for _, l := range listeners {
		p.some[spot{proto: l.Proto, port: l.Addr.Port()}] = true
	}
}

// policy says what becomes of what listens in guests.
type policy struct {
	rules   Rules
	static  Static
	sockets Sockets
}

func (t *Table) setRules(rules Rules, static Static, sockets Sockets) {
	t.policy = policy{rules, static, sockets}
	if rules == nil {
		t.policy.rules = SamePort
	}
	if static == nil {
		t.policy.static = func(string) []portlist.Listener { return nil }
	}
	if sockets == nil {
		t.policy.sockets = func(string) []GuestSocket { return nil }
	}
}

// decide asks the rules about every listener on some ports and groups those that go
// together, which are on the same one. What nothing reaches stays in the guest. The
// order is that of the listeners. What has gone is as it was, if rules still hold it and
// nothing else is in its place. Among many listeners it rests now and then.
func (p policy) decide(vm string, of ports, announced, gone []portlist.Listener, r *route, rest func()) wanted {
	w := wanted{groups: make(map[key]*group, len(announced)), order: make([]key, 0, len(announced)), first: make(map[key]key), renamed: make(map[key]key), decisions: make(map[string]string)}
	if announced == nil {
		return w
	}
	static := of.of(p.static(vm))
	w.expects = len(static)+len(gone) > 0
	for i, l := range announced {
		if i%many == many-1 {
			rest()
		}
		for d := range p.rules(vm, l).all() {
			g := w.group(l, d, r.unreached(l))
			g.decision.Automatic = g.decision.Automatic && d.Automatic
			if len(g.guest) == 0 {
				g.uid = l.UID
			}
			if !slices.ContainsFunc(g.guest, func(o portlist.Listener) bool { return o.Addr == l.Addr }) {
				g.guest = append(g.guest, l)
			}
			g.process = cmp.Or(g.process, l.Process)
		}
	}
	for _, l := range static {
		for d := range p.rules(vm, l).all() {
			k := w.keyOf(l, d).localhost()
			if first, ok := w.first[k]; ok {
				w.groups[first].decision.Automatic = false
				w.rename(first, k)
				continue
			}
			g := w.at(k, d)
			g.guest, g.expected = append(g.guest, l), true
		}
	}
	for _, l := range gone {
		for d := range p.rules(vm, l).all() {
			w.hold(l, d, r.unreached(l))
		}
	}
	for _, s := range p.sockets(vm) {
		if !of.has(protoUnix, 0) {
			break
		}
		w.at(key{proto: protoUnix, socket: s.Path, decision: w.decision(s.Decision, 0)}, s.Decision)
	}
	for i, k := range w.order {
		if to, ok := w.renamed[k]; ok {
			w.order[i] = to
		}
	}
	// What is localhost comes first, and then what a rule names, so that little has to
	// give way.
	slices.SortStableFunc(w.order, func(a, b key) int {
		return cmp.Or(cmp.Compare(min(a.addr.BitLen(), 1), min(b.addr.BitLen(), 1)), cmp.Compare(w.rank(a), w.rank(b)))
	})
	return w
}

// group is what a listener is part of that a rule forwards, or that stays in the
// guest because it is unreached. What is expected on a port is also the latter, if
// nothing else is there.
func (w *wanted) group(l portlist.Listener, d Decision, unreached string) *group {
	k := w.keyOf(l, d)
	at := k.localhost()
	if unreached != "" && d.Verdict == "" {
		d = Decision{Verdict: status.Ignored, Reason: unreached, Rule: d.Rule}
		k = w.keyOf(l, d)
	}
	if first, ok := w.first[at]; w.expects && !ok || ok && w.groups[first].decision.Verdict != "" {
		w.first[at] = k
	}
	return w.at(k, d)
}

// hold keeps what has gone as it was, if its rule says so and nothing is in its place.
func (w *wanted) hold(l portlist.Listener, d Decision, unreached string) {
	k := w.keyOf(l, d)
	g := w.groups[k]
	if _, taken := w.first[k.localhost()]; taken || g != nil && !g.held || d.Hold == 0 || d.Verdict != "" || unreached != "" {
		return
	}
	if g == nil {
		g = w.at(k, d)
		g.held, g.process, g.uid = true, l.Process, l.UID
	}
	g.guest = append(g.guest, l)
}

// rank is lower for what a rule names.
func (w *wanted) rank(k key) int {
	if w.groups[k].decision.Automatic {
		return 1
	}
	return 0
}

// rename puts what listens on a port in the place of what is expected there, if
// nothing else does. A static forward stays the same whatever its server's address,
// as long as that is reached.
func (w *wanted) rename(from, to key) {
	if w.groups[to] != nil || w.groups[from].decision.Verdict != "" {
		return
	}
	w.groups[to] = w.groups[from]
	delete(w.groups, from)
	w.renamed[from] = to
}

// decision is what tells a decision about a port apart; there is one string for all that
// are the same.
func (w *wanted) decision(d Decision, port uint16) string {
	var buf [64]byte
	b := d.appendKey(buf[:0], port)
	s, ok := w.decisions[string(b)]
	if !ok {
		s = string(b)
		w.decisions[s] = s
	}
	return s
}

func (w *wanted) keyOf(l portlist.Listener, d Decision) key {
	k := key{proto: l.Proto, port: l.Addr.Port(), decision: w.decision(d, l.Addr.Port())}
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
