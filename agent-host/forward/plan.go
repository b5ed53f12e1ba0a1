package forward

import (
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/forward/turns"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// plan is a VM's forwards as they are to be.
type plan struct {
	*VM
	policy.Wanted
	of        policy.Ports
	decided   int
	route     *serve.Route
	policy    policy.Policy
	announced []portlist.Listener
	started   bool
	gone      []portlist.Listener
}

// plan needs table.mu.
func (v *VM) plan() *plan {
	v.decided++
	of := v.stale.Clone()
	return &plan{
		VM: v, of: of, decided: v.decided, route: v.guest.Route(), policy: v.policy(),
		announced: v.announced, started: v.started, gone: v.gone.On(of),
	}
}

// decide is done without a lock.
func (p *plan) decide() {
	p.Wanted = p.policy.Decide(p.name, p.of, p.table.others(p.announced, p.started, p.of), p.gone, p.route.Reach, turns.Rest)
}

// inForce reports whether nothing newer was decided.
func (p *plan) inForce() bool { return !p.closed && p.VM.decided == p.decided }

func (p *plan) large() bool {
	return !p.of.IsFew(max(len(p.announced), p.forwards.Len()+p.room.Len()))
}

// decideAnew changes rules or what is announced, and makes the forwards of the
// VMs concerned what is wanted then: those that go first, so that what moves
// from one VM to another is free by then.
//
// A plan for few ports is carried out at once. Others are made one at a time, whichever
// VMs they are for: thousands of ports of twenty VMs would take a hundred megabytes, and
// the processor from the VM with one port.
func (t *Table) decideAnew(change func() []*VM) {
	var plans []*plan
	large := false
	t.mu.Look(func() {
		if t.mu.Closed() {
			return
		}
		for _, v := range change() {
			p := v.plan()
			plans, large = append(plans, p), large || p.large()
		}
		if large {
			t.busy++
			for _, p := range plans {
				p.room.Expect(len(p.announced))
			}
		}
	})
	work := t.mu.AtOnce
	if large {
		work = t.mu.InTurns
		t.large.Lock()
		defer t.large.Unlock()
		defer t.mu.Look(func() { t.busy-- })
	}
	isOver := func(p *plan) (is bool) {
		t.mu.Look(func() { is = !p.inForce() })
		return is
	}
	freed := false
	for _, p := range plans {
		if isOver(p) {
			continue
		}
		p.decide()
		work(func(u turns.Turn) bool {
			more := p.inForce() && p.withdrawBut(p.Wanted, p.of, u)
			freed = freed || len(t.released) > 0
			return more
		})
		if len(plans) > 1 {
			p.Wanted = policy.Wanted{} // thousands of them
		}
	}
	if freed {
		work(t.handReleased)
	}
	for _, p := range plans {
		if isOver(p) {
			continue
		}
		if p.Groups == nil {
			p.decide()
		}
		work(func(u turns.Turn) bool {
			if !p.inForce() {
				return false
			}
			if p.openWanted(&p.Wanted, u) {
				return true
			}
			p.stale, p.heard = policy.Ports{}, time.Time{}
			p.room.Expect(0)
			return false
		})
		p.Wanted = policy.Wanted{}
	}
	more := false
	t.mu.Look(func() { more = !t.mu.Closed() && t.handOver(t.mu.Begin()) })
	if more {
		t.mu.InTurns(t.handOver)
	}
}

// SetRules replaces the rules of all VMs. Forwards that stay the same keep their
// listeners and connections; of those that go, the listeners are closed before
// others are opened, and connections go on until they end by themselves. nil
// means what it means in a [Config].
func (t *Table) SetRules(rules policy.Rules, static policy.Static, sockets policy.Sockets, names policy.Names) {
	t.decideAnew(func() []*VM {
		t.policy = policy.New(rules, static, sockets, names)
		for _, v := range t.vms {
			v.stale.All = true
		}
		return slices.Clone(t.vms)
	})
}

// others is what was announced on some ports without listeners of ours; nil if nothing
// was announced yet.
func (t *Table) others(announced []portlist.Listener, started bool, p policy.Ports) []portlist.Listener {
	if !started {
		return nil
	}
	return slices.DeleteFunc(p.OfSorted(announced), t.host.IsOwn)
}

// withdrawBut takes all other forwards of some ports off the host, for one turn. It
// reports whether there are more.
func (v *VM) withdrawBut(w policy.Wanted, of policy.Ports, u turns.Turn) (more bool) {
	for r := range v.room.Rows() {
		if of.Has(r.Key.Proto, r.Key.Port) && w.Groups[r.Key] == nil {
			v.publishRow(events.Stopped, r.Key, r.State(), "")
			v.dropRow(r)
		}
	}
	for k, f := range v.forwards.On(of) {
		if w.Groups[k] != nil && !f.mustMoveOn() {
			continue
		}
		v.table.withdraw(f)
		v.forwards.Delete(k)
		if u.Over() {
			return true
		}
	}
	return false
}

// openWanted opens the forwards that are not there yet and describes all anew, for one
// turn. It reports whether there are more.
func (v *VM) openWanted(w *policy.Wanted, u turns.Turn) (more bool) {
	v.table.host.NewRound()
	for len(w.Order) > 0 {
		k := w.Order[0]
		w.Order = w.Order[1:]
		g := w.Groups[k]
		if f := v.forwards.Get(k); f != nil {
			v.table.setAutomatic(f, g.Decision.Automatic)
			f.describe(g)
			v.table.openOwn(f)
		} else if r := v.room.Row(k); r != nil {
			if r.Describe(g) {
				v.outOfRoom(k.Port, r.Reason())
			}
		} else {
			v.add(k, g)
			v.measure(k)
		}
		if u.Over() {
			return true
		}
	}
	return false
}

// add takes in a new port.
func (v *VM) add(k policy.Key, g *policy.Group) {
	t := v.table
	if g.Decision.Verdict != "" {
		t.log.Debug("guest port is not forwarded", "vm", v.name, "proto", k.Proto, "port", k.Port, "reason", g.Decision.Reason)
		v.addRow(k, g, g.Decision.Verdict, g.Decision.Reason, nil)
		return
	}
	if err := t.room.MayHave(v.room.NeedOf(g)); err != nil {
		v.addRow(k, g, status.Denied, err.Error(), nil)
		return
	}
	v.open(k, g, nil)
}

// open puts a forward on the host, with the tally of earlier connections if there is one.
func (v *VM) open(k policy.Key, g *policy.Group, earlier *serve.Tally) {
	f := newForward(v, k, g, earlier)
	v.forwards.Set(k, f)
	for _, b := range f.bindings() {
		if !f.shelved {
			v.table.openOrClaim(b)
		}
	}
	v.changed() // last: it begins what tells the guest
}
