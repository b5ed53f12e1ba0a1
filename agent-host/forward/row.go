package forward

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// row is a guest port that has no host addresses, because a rule keeps it in the guest
// or because there is no room. A guest may have thousands of those, so each costs
// little. A forward takes its place when there is room. It is guarded by table.mu.
type row struct {
	key      policy.Key
	consumer *consumer
	*outcome
	guest   []netip.AddrPort // that listen there; nil if it is expected
	process string
	tally   *serve.Tally // of its connections; nil if it never had any
	waiting bool         // for room, in consumer.waiting
}

// rows are sorted by key and kept by page, each a number of ports: that takes a tenth of
// a map's memory.
type rows struct {
	pages map[uint16][]*row // none is empty
	n     int
}

func pageOf(k policy.Key) uint16 { return k.Port / 64 }

func find(page []*row, k policy.Key) (at int, found bool) {
	return slices.BinarySearchFunc(page, k, func(r *row, k policy.Key) int { return r.key.Compare(k) })
}

// get returns nil if there is none.
func (all *rows) get(k policy.Key) *row {
	page := all.pages[pageOf(k)]
	if i, found := find(page, k); found {
		return page[i]
	}
	return nil
}

func (all *rows) add(r *row) {
	if all.pages == nil {
		all.pages = make(map[uint16][]*row)
	}
	p := pageOf(r.key)
	page := all.pages[p]
	at, _ := find(page, r.key)
	all.pages[p] = slices.Insert(page, at, r)
	all.n++
}

func (all *rows) remove(r *row) {
	p := pageOf(r.key)
	page := all.pages[p]
	if i, found := find(page, r.key); found {
		all.n--
		if all.pages[p] = slices.Delete(page, i, i+1); len(page) == 1 {
			delete(all.pages, p)
		}
	}
}

// each is all of them, of which the one that it is at may be removed.
func (all *rows) each() iter.Seq[*row] {
	return func(yield func(*row) bool) {
		for _, page := range all.pages {
			for i := len(page) - 1; i >= 0; i-- {
				if !yield(page[i]) {
					return
				}
			}
		}
	}
}

// outcome is what rows have in common that are next to each other.
type outcome struct {
	state, reason, label string
	host                 []netip.Addr
	port                 int // of the host, less that of the guest
	socket               string
}

// outcomeOf is that of a row under a decision; one that is the same as before is shared.
func (c *consumer) outcomeOf(k policy.Key, d *policy.Decision, state, reason string) *outcome {
	o := outcome{state: state, reason: reason, label: d.Label, socket: d.HostSocket}
	for _, a := range d.Host {
		o.host = append(o.host, a.Addr())
		o.port = int(a.Port()) - int(k.Port)
	}
	if l := c.outcome; l == nil || l.state != o.state || l.reason != o.reason || l.label != o.label ||
		l.port != o.port || l.socket != o.socket || !slices.Equal(l.host, o.host) {
		c.outcome = &o
	}
	return c.outcome
}

// addRow has a port stay in the guest.
func (v *VM) addRow(k policy.Key, g *policy.Group, state, reason string) *row {
	c := v.join(consumerOf(g))
	r := &row{key: k, consumer: c, outcome: c.outcomeOf(k, &g.Decision, state, reason), process: g.Process}
	r.listens(g)
	v.rows.add(r)
	r.wait(v)
	v.changed()
	return r
}

// listens takes over what listens in the guest.
func (r *row) listens(g *policy.Group) {
	r.guest = nil
	if g.Expected || g.Held {
		return
	}
	r.guest = make([]netip.AddrPort, len(g.Guest))
	for i, l := range g.Guest {
		r.guest[i] = l.Addr
	}
}

// describe takes over what an announcement says and what needs no host addresses.
func (r *row) describe(v *VM, g *policy.Group) {
	r.listens(g)
	r.process = g.Process
	reason := r.reason
	if g.Decision.Verdict != "" {
		reason = g.Decision.Reason
	}
	r.outcome = r.consumer.outcomeOf(r.key, &g.Decision, r.state, reason)
	r.wait(v)
}

// wait has a row wait for room, if that is what it lacks.
func (r *row) wait(v *VM) {
	if r.waiting || r.state != status.Denied || r.key.Decision == status.Denied {
		return
	}
	r.waiting = true
	c := r.consumer
	c.waits++
	v.waits++
	if len(c.waiting) > 2*c.waits+64 {
		c.waiting = slices.DeleteFunc(c.waiting, func(o *row) bool { return !o.waiting })
	}
	c.waiting = append(c.waiting, r)
	v.outOfRoom(r.key.Port, r.reason)
}

// drop forgets a row.
func (v *VM) drop(r *row) {
	v.rows.remove(r)
	r.give(v)
	v.leave(r.consumer)
	v.changed()
}

// give takes a row out of those that wait.
func (r *row) give(v *VM) {
	if !r.waiting {
		return
	}
	r.waiting = false
	r.consumer.waits--
	if v.waits--; v.waits == 0 {
		v.full = false
	}
}

// shelve makes a row of a forward for which there is no room. Its connections go on.
func (t *Table) shelve(f *forward, reason string) {
	v, k := f.vm, f.key
	g := &policy.Group{Decision: f.decision, Guest: f.service.Listeners(), Process: f.process, UID: f.uid, Expected: f.expected, Held: f.held}
	f.shelved = true
	t.takeDown(f)
	delete(v.forwards, k)
	r := v.addRow(k, g, status.Denied, reason)
	if f.service.Total.Load() > 0 {
		r.tally = f.service.Tally
	}
}

// promote puts a forward in the place of a row for which there is room.
func (t *Table) promote(v *VM, r *row) {
	r.give(v)
	of := policy.Port(r.key.Proto, r.key.Port)
	g := t.policy.Decide(v.name, of, t.others(v.announced, v.started, of), v.goneOnes(of), v.guest.Route().Reach, func() {}).Groups[r.key]
	if g == nil {
		return // something else was announced, and is being decided on
	}
	v.drop(r)
	v.open(r.key, g, r.tally)
}

// kept is the row at localhost that keeps others of its port out; nil for none. Without
// it, localhost would mean another service for as long as there is no room.
func (v *VM) kept(k policy.Key) *row {
	if !k.Addr.IsValid() {
		return nil
	}
	if r := v.rows.get(k.Localhost()); r != nil && r.waiting {
		return r
	}
	return nil
}

// hosts are the addresses that are wanted.
func (r *row) hosts() []string {
	if r.socket != "" {
		return []string{r.socket}
	}
	out := make([]string, len(r.host))
	for i, ip := range r.host {
		out[i] = netip.AddrPortFrom(ip, r.hostPort()).String()
	}
	return out
}

func texts(addrs []netip.AddrPort) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

// hostPort is that of the wanted addresses; 0 for none.
func (r *row) hostPort() uint16 {
	if len(r.host) == 0 {
		return 0
	}
	return uint16(int(r.key.Port) + r.port)
}

func (r *row) status() status.Forward {
	st := status.Forward{
		Proto: r.key.Proto, Port: r.key.Port, Process: r.process, Rule: r.consumer.key.rule, Label: r.label,
		State: r.state, Reason: r.reason, Host: r.hosts(), Listening: []string{}, Guest: texts(r.guest),
	}
	if r.key.Socket != "" {
		st.Guest = []string{r.key.Socket}
	}
	if r.tally != nil {
		r.tally.Show(&st)
	}
	return st
}
