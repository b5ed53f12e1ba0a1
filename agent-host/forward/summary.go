package forward

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/excerpt"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
	"github.com/rum-vm/rum-agent/agent-host/forward/turns"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Status returns the VM's forwards by protocol and port.
func (v *VM) Status() []status.Forward {
	all, _ := v.Summary(0)
	return all
}

// shownAtOnce is how many ports are told of before others may have the table: a new port
// does not wait for the status of thousands.
const shownAtOnce = 128

// Summary is Status of so many forwards, which [excerpt.Rank] chooses, and counts the
// others by state. 0 rows is all.
func (v *VM) Summary(rows int) (shown []status.Forward, more map[string]int) {
	if rows > 0 {
		s := v.table.Summaries([]*VM{v}, rows)[0]
		return s.Shown, s.More
	}
	t := v.table
	var all []port
	t.mu.Look(func() {
		shown = v.reverse.Status()
		if n := v.forwards.Len() + v.room.Len(); n <= shownAtOnce {
			shown = v.show(shown, v.ports())
		} else {
			all = slices.AppendSeq(make([]port, 0, n), v.ports())
		}
	})
	shown = slices.Grow(shown, len(all))
	slices.SortFunc(all, port.compare) // what is shown is larger
	for len(all) > 0 {
		t.mu.Look(func() {
			for u := t.mu.Begin(); len(all) > 0; {
				n := min(shownAtOnce, len(all))
				shown = v.show(shown, slices.Values(all[:n]))
				if all = all[n:]; u.Over() {
					return
				}
			}
		})
		turns.Rest()
	}
	excerpt.Sort(shown)
	return shown, nil
}

// Summary is what is told of a VM.
type Summary struct {
	Shown []status.Forward
	More  map[string]int // the others, by state; not to be changed
}

// Summaries are those of VMs, with so many forwards of all of them together. Each has a
// few at least. Others come in between: what a VM with thousands of ports has takes a moment
// to go through.
func (t *Table) Summaries(vms []*VM, rows int) []Summary {
	out := make([]Summary, len(vms))
	counts := make([]int, len(vms))
	t.mu.Look(func() {
		for i, v := range vms {
			counts[i] = v.forwards.Len() + v.room.Len() + v.reverse.Len()
		}
	})
	most := max(room.Level(counts, rows), min(excerpt.FewRows, rows))
	for i := 0; i < len(vms); {
		t.mu.Look(func() {
			for u := t.mu.Begin(); i < len(vms); {
				out[i] = vms[i].summary(most)
				if i++; u.Over() {
					return
				}
			}
		})
	}
	for _, s := range out {
		excerpt.Sort(s.Shown)
	}
	return out
}

// summary needs table.mu.
func (v *VM) summary(most int) (s Summary) {
	s.Shown = v.reverse.Status()
	left := max(0, most-len(s.Shown))
	if n := v.forwards.Len() + v.room.Len(); n <= left {
		s.Shown = v.show(slices.Grow(s.Shown, n), v.ports())
		return s
	}
	// To go through thousands of ports takes the table, and the processor, from who opens one.
	if !v.chosen.Good(left, v.table.busy > 0) {
		v.chosen = excerpt.Choose(v.ports(), left, port.rank, port.compare)
	}
	s.Shown = v.show(slices.Grow(s.Shown, left), slices.Values(v.chosen.Shown))
	s.More = v.chosen.Others
	return s
}

// port is a forward, or a row.
type port struct {
	*forward
	row *room.Row
}

// ports are all of a VM's. They need table.mu, as all that is done with them but for
// their order.
func (v *VM) ports() iter.Seq[port] {
	return func(yield func(port) bool) {
		for _, f := range v.forwards.All() {
			if !yield(port{forward: f}) {
				return
			}
		}
		for r := range v.room.Rows() {
			if !yield(port{row: r}) {
				return
			}
		}
	}
}

func (p port) of() (policy.Key, *room.Consumer) {
	if p.row != nil {
		return p.row.Key, p.row.Consumer()
	}
	return p.key, p.seat.Consumer()
}

func (p port) state() string {
	if p.row != nil {
		return p.row.State()
	}
	return p.forward.state()
}

// failing is how long ago a connection may have failed for its forward to come first.
const failing = 10 * time.Minute

func (p port) rank() excerpt.Rank {
	_, c := p.of()
	if p.row != nil {
		return excerpt.Rank{State: p.state(), NoRoom: p.row.Waits(), Ports: c.Ports()}
	}
	return excerpt.Rank{State: p.state(), Failing: p.service.Tally.Errors.Within(failing), Ports: c.Ports()}
}

func (p port) compare(o port) int {
	a, _ := p.of()
	b, _ := o.of()
	if c := cmp.Compare(a.Port, b.Port); c != 0 && a.Proto == b.Proto {
		return c
	}
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
}

// show appends what ports are now, if they are there any more.
func (v *VM) show(shown []status.Forward, all iter.Seq[port]) []status.Forward {
	for p := range all {
		k, _ := p.of()
		if f := v.forwards.Get(k); f != nil {
			shown = append(shown, f.status())
		} else if r := v.room.Row(k); r != nil {
			shown = append(shown, r.Status())
		}
	}
	return shown
}
