package room

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Row is a guest port that has no host addresses, because a rule keeps it in the guest
// or because there is no room. A guest may have thousands of those, so each costs
// little. A forward takes its place when there is room.
type Row struct {
	// Key is the port's.
	Key policy.Key

	consumer *Consumer
	*outcome
	guest     *[]netip.Addr // that listen on the port; nil if it is expected. Rows like each other share it
	process   string
	tally     *serve.Tally // of its connections; nil if it never had any
	since     int64        // when it came, as [time.Time.UnixMilli] has it
	announced int64        // when what listens did
	waiting   bool         // for room, in consumer.waiting
}

// rows are sorted by key and kept by page, each a number of ports: that takes a tenth of
// a map's memory.
type rows struct {
	pages map[uint16][]*Row // none is empty
	n     int
}

func pageOf(k policy.Key) uint16 { return k.Port / 64 }

func find(page []*Row, k policy.Key) (at int, found bool) {
	return slices.BinarySearchFunc(page, k, func(r *Row, k policy.Key) int { return r.Key.Compare(k) })
}

// get returns nil if there is none.
func (all *rows) get(k policy.Key) *Row {
	page := all.pages[pageOf(k)]
	if i, found := find(page, k); found {
		return page[i]
	}
	return nil
}

func (all *rows) add(r *Row) {
	if all.pages == nil {
		all.pages = make(map[uint16][]*Row)
	}
	p := pageOf(r.Key)
	page := all.pages[p]
	at, _ := find(page, r.Key)
	all.pages[p] = slices.Insert(page, at, r)
	all.n++
}

func (all *rows) remove(r *Row) {
	p := pageOf(r.Key)
	page := all.pages[p]
	if i, found := find(page, r.Key); found {
		all.n--
		if all.pages[p] = slices.Delete(page, i, i+1); len(page) == 1 {
			delete(all.pages, p)
		}
	}
}

// each is all of them, of which the one that it is at may be removed.
func (all *rows) each() iter.Seq[*Row] {
	return func(yield func(*Row) bool) {
		for _, page := range all.pages {
			for i := len(page) - 1; i >= 0; i-- {
				if !yield(page[i]) {
					return
				}
			}
		}
	}
}

// outcome is what rows have in common that are like each other.
type outcome struct {
	state, reason, label string
	host                 []netip.Addr
	port                 int // of the host, less that of the guest
	socket               string
}

// outcomeOf is that of a row under a decision; one that is the same as before is shared.
func (c *Consumer) outcomeOf(k policy.Key, d *policy.Decision, state, reason string) *outcome {
	o := outcome{state: state, reason: reason, label: d.Label, socket: d.HostSocket}
	for _, a := range d.Host {
		o.host = append(o.host, a.Addr())
		o.port = int(a.Port()) - int(k.Port)
	}
	return c.outcomes.like(o, func(a, b outcome) bool {
		return a.state == b.state && a.reason == b.reason && a.label == b.label &&
			a.port == b.port && a.socket == b.socket && slices.Equal(a.host, b.host)
	})
}

// AddRow has a port stay in the guest, of listeners announced at a time. It reports whether it waits for room.
func (v *VM) AddRow(k policy.Key, g *policy.Group, state, reason string, tally *serve.Tally, announced time.Time) (waits bool) {
	c := v.join(v.keyOf(g))
	r := &Row{Key: k, consumer: c, outcome: c.outcomeOf(k, &g.Decision, state, reason), process: g.Process, tally: tally, since: time.Now().UnixMilli(), announced: announced.UnixMilli()}
	r.listens(g)
	v.rows.add(r)
	return r.wait()
}

// listens takes over what listens in the guest.
func (r *Row) listens(g *policy.Group) {
	r.guest = nil
	if g.Expected || g.Held {
		return
	}
	addrs := make([]netip.Addr, len(g.Guest))
	for i, l := range g.Guest {
		addrs[i] = l.Addr.Addr()
	}
	r.guest = r.consumer.guests.like(addrs, slices.Equal)
}

// Describe takes over what an announcement says and what needs no host addresses. It reports
// whether the row waits for room, and did not before.
func (r *Row) Describe(g *policy.Group) (waits bool) {
	r.listens(g)
	r.process = g.Process
	if k := r.consumer.vm.keyOf(g); !r.waiting && k != r.consumer.key {
		was := r.consumer
		r.consumer = was.vm.join(k) // as another rule's, or another program's
		was.leave()
	}
	reason := r.reason
	if g.Decision.Verdict != "" {
		reason = g.Decision.Reason
	}
	r.outcome = r.consumer.outcomeOf(r.Key, &g.Decision, r.state, reason)
	return r.wait()
}

// wait has a row wait for room, if that is what it lacks.
func (r *Row) wait() bool {
	if r.waiting || r.state != status.Denied || r.Key.Decision == status.Denied {
		return false
	}
	r.waiting = true
	c := r.consumer
	c.waits++
	c.vm.waits++
	if len(c.waiting) > 2*c.waits+64 {
		c.waiting = slices.DeleteFunc(c.waiting, func(o *Row) bool { return !o.waiting })
	}
	c.waiting = append(c.waiting, r)
	return true
}

// Drop forgets a row.
func (v *VM) Drop(r *Row) {
	v.rows.remove(r)
	r.GiveUp()
	r.consumer.leave()
}

// GiveUp takes a row out of those that wait.
func (r *Row) GiveUp() {
	if !r.waiting {
		return
	}
	r.waiting = false
	r.consumer.waits--
	v := r.consumer.vm
	if v.waits--; v.waits == 0 {
		v.full = false
	}
}

// Row is the row of that key; nil if there is none.
func (v *VM) Row(k policy.Key) *Row { return v.rows.get(k) }

// Rows are all of the VM's, of which the one that it is at may be dropped.
func (v *VM) Rows() iter.Seq[*Row] { return v.rows.each() }

// Len is how many rows there are.
func (v *VM) Len() int { return v.rows.n }

// Consumer is whose the row is.
func (r *Row) Consumer() *Consumer { return r.consumer }

// State is one of package status, and Reason why it is that.
func (r *Row) State() string { return r.state }

// Reason is why the row has no host addresses.
func (r *Row) Reason() string { return r.reason }

// Waits reports whether the row waits for room.
func (r *Row) Waits() bool { return r.waiting }

// Listens reports whether something listens in the guest, and is not expected only.
func (r *Row) Listens() bool { return r.guest != nil }

// Tally is that of earlier connections; nil for none.
func (r *Row) Tally() *serve.Tally { return r.tally }

// Keeper is the row at localhost that keeps others of its port out; nil for none. Without
// it, localhost would mean another service for as long as there is no room.
func (v *VM) Keeper(k policy.Key) *Row {
	if !k.Addr.IsValid() {
		return nil
	}
	if r := v.rows.get(k.Localhost()); r != nil && r.waiting {
		return r
	}
	return nil
}

// hosts are the addresses that are wanted.
func (r *Row) hosts() []string {
	if r.socket != "" {
		return []string{r.socket}
	}
	out := make([]string, len(r.host))
	for i, ip := range r.host {
		out[i] = netip.AddrPortFrom(ip, r.HostPort()).String()
	}
	return out
}

// guests are the addresses that listen in the guest.
func (r *Row) guests() []string {
	out := []string{}
	if r.guest != nil {
		for _, ip := range *r.guest {
			out = append(out, netip.AddrPortFrom(ip, r.Key.Port).String())
		}
	}
	return out
}

// HostPort is that of the wanted addresses; 0 for none.
func (r *Row) HostPort() uint16 {
	if len(r.host) == 0 {
		return 0
	}
	return uint16(int(r.Key.Port) + r.port)
}

// Status tells about the row.
func (r *Row) Status() status.Forward {
	st := status.Forward{
		AnnouncedAt: time.UnixMilli(r.announced), Since: time.UnixMilli(r.since),
		Proto: r.Key.Proto, Port: r.Key.Port, Process: r.process, Rule: r.consumer.key.rule, Label: r.label,
		State: r.state, Reason: r.reason, Host: r.hosts(), Listening: []string{}, Guest: r.guests(),
	}
	if r.Key.Socket != "" {
		st.Guest = []string{r.Key.Socket}
	}
	if r.tally != nil {
		r.tally.Show(&st)
	}
	return st
}
