package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Wanted are the forwards that a VM should have, and their order.
type Wanted struct {
	Groups map[Key]*Group // nil where nothing is decided
	Order  []Key          // of Groups, each once
	// first is what listens on a port, whatever its address. It is known where something is
	// expected.
	first   map[Key]Key
	expects bool
	// renamed are keys in order that are others by now.
	renamed   map[Key]Key
	decisions map[string]string
}

// Group is the listeners that make up one forward.
type Group struct {
	Decision Decision
	Guest    []portlist.Listener // no address twice
	Process  string
	UID      uint32 // of the guest, whose the first of them is
	Expected bool   // static, and nothing is seen to listen there
	Held     bool   // nothing is seen to listen there any more
}

// Policy says what becomes of what listens in guests.
type Policy struct {
	rules   Rules
	static  Static
	sockets Sockets
	names   Names
}

// New returns the policy of functions of which each may be nil; see [Rules], [Static],
// [Sockets] and [Names].
func New(rules Rules, static Static, sockets Sockets, names Names) Policy {
	if rules == nil {
		rules = SamePort
	}
	if static == nil {
		static = func(string) []portlist.Listener { return nil }
	}
	if sockets == nil {
		sockets = func(string) []GuestSocket { return nil }
	}
	if names == nil {
		names = func(string, string, netip.AddrPort) uint16 { return 0 }
	}
	return Policy{rules, static, sockets, names}
}

// Names is the [Names] of the policy.
func (p Policy) Names(vm, proto string, at netip.AddrPort) (last uint16) {
	return p.names(vm, proto, at)
}

// Decide asks the rules about every listener on some ports and groups those that go
// together, which are on the same one. What nothing reaches stays in the guest. The
// order is that of the listeners. What has gone is as it was, if rules still hold it and
// nothing else is in its place. Among many listeners it rests now and then.
func (p Policy) Decide(vm string, of Ports, announced, gone []portlist.Listener, r Reach, rest func()) Wanted {
	w := Wanted{Groups: make(map[Key]*Group, len(announced)), Order: make([]Key, 0, len(announced)), first: make(map[Key]Key), renamed: make(map[Key]Key), decisions: make(map[string]string)}
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
			g.Decision.Automatic = g.Decision.Automatic && d.Automatic
			if len(g.Guest) == 0 {
				g.UID = l.UID
			}
			if !slices.ContainsFunc(g.Guest, func(o portlist.Listener) bool { return o.Addr == l.Addr }) {
				g.Guest = append(g.Guest, l)
			}
			g.Process = cmp.Or(g.Process, l.Process)
		}
	}
	for _, l := range static {
		for d := range p.rules(vm, l).all() {
			if !d.Static {
				continue // another rule's place of the same port
			}
			k := w.keyOf(l, d).Localhost()
			if first, ok := w.first[k]; ok {
				w.Groups[first].Decision.Automatic = false
				w.rename(first, k)
				continue
			}
			g := w.at(k, d)
			g.Guest, g.Expected = append(g.Guest, l), true
		}
	}
	for _, l := range gone {
		for d := range p.rules(vm, l).all() {
			w.hold(l, d, r.unreached(l))
		}
	}
	for _, s := range p.sockets(vm) {
		if !of.Has(ProtoUnix, 0) {
			break
		}
		w.at(Key{Proto: ProtoUnix, Socket: s.Path, Decision: w.decision(s.Decision, 0)}, s.Decision)
	}
	for i, k := range w.Order {
		if to, ok := w.renamed[k]; ok {
			w.Order[i] = to
		}
	}
	// What is localhost comes first, and then what a rule names, so that little has to
	// give way.
	slices.SortStableFunc(w.Order, func(a, b Key) int {
		return cmp.Or(cmp.Compare(min(a.Addr.BitLen(), 1), min(b.Addr.BitLen(), 1)), cmp.Compare(w.rank(a), w.rank(b)))
	})
	return w
}

// group is what a listener is part of that a rule forwards, or that stays in the
// guest because it is unreached. What is expected on a port is also the latter, if
// nothing else is there.
func (w *Wanted) group(l portlist.Listener, d Decision, unreached string) *Group {
	k := w.keyOf(l, d)
	at := k.Localhost()
	if unreached != "" && d.Verdict == "" {
		d = Decision{Verdict: status.Ignored, Reason: unreached, Rule: d.Rule}
		k = w.keyOf(l, d)
	}
	if first, ok := w.first[at]; w.expects && !ok || ok && w.Groups[first].Decision.Verdict != "" {
		w.first[at] = k
	}
	return w.at(k, d)
}

// hold keeps what has gone as it was, if its rule says so and nothing is in its place.
func (w *Wanted) hold(l portlist.Listener, d Decision, unreached string) {
	k := w.keyOf(l, d)
	g := w.Groups[k]
	if _, taken := w.first[k.Localhost()]; taken || g != nil && !g.Held || d.Hold == 0 || d.Verdict != "" || unreached != "" {
		return
	}
	if g == nil {
		g = w.at(k, d)
		g.Held, g.Process, g.UID = true, l.Process, l.UID
	}
	g.Guest = append(g.Guest, l)
}

// rank is lower for what a rule names.
func (w *Wanted) rank(k Key) int {
	if w.Groups[k].Decision.Automatic {
		return 1
	}
	return 0
}

// rename puts what listens on a port in the place of what is expected there, if
// nothing else does. A static forward stays the same whatever its server's address,
// as long as that is reached.
func (w *Wanted) rename(from, to Key) {
	if w.Groups[to] != nil || w.Groups[from].Decision.Verdict != "" {
		return
	}
	w.Groups[to] = w.Groups[from]
	delete(w.Groups, from)
	w.renamed[from] = to
}

// decision is what tells a decision about a port apart; there is one string for all that
// are the same.
func (w *Wanted) decision(d Decision, port uint16) string {
	var buf [64]byte
	b := d.appendKey(buf[:0], port)
	s, ok := w.decisions[string(b)]
	if !ok {
		s = string(b)
		w.decisions[s] = s
	}
	return s
}

func (w *Wanted) keyOf(l portlist.Listener, d Decision) Key {
	k := Key{Proto: l.Proto, Port: l.Addr.Port(), Decision: w.decision(d, l.Addr.Port())}
	ip := l.Addr.Addr()
	if d.Verdict == "" && !ip.IsUnspecified() && ip != loopback4 && ip != loopback6 {
		k.Addr = ip
	}
	return k
}

func (w *Wanted) at(k Key, d Decision) *Group {
	g := w.Groups[k]
	if g == nil {
		g = &Group{Decision: d}
		w.Groups[k] = g
		w.Order = append(w.Order, k)
	}
	return g
}
