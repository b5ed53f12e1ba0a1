package forward

import (
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// What a limit of the package room means for forwards and bindings. All of it needs
// table.mu.

// addRow has a port stay in the guest.
func (v *VM) addRow(k policy.Key, g *policy.Group, state, reason string, tally *serve.Tally) {
	v.publishRow(events.Denied, k, state, reason)
	if v.room.AddRow(k, g, state, reason, tally, v.since.Since(g.Guest, time.Now())) {
		v.outOfRoom(k.Port, reason)
	}
	v.changed()
}

// dropRow forgets a row.
func (v *VM) dropRow(r *room.Row) {
	v.room.Drop(r)
	v.changed()
}

// Shelve makes a row of a forward for which there is no room. Its connections go on.
func (f *forward) Shelve(reason string) {
	v, k := f.vm, f.key
	g := &policy.Group{Decision: f.decision, Guest: f.service.Listeners(), Process: f.process, UID: f.uid, Expected: f.expected, Held: f.held}
	f.shelved, f.published = true, ""
	v.table.takeDown(f)
	v.forwards.Delete(k)
	var tally *serve.Tally
	if f.service.Total.Load() > 0 {
		tally = f.service.Tally
	}
	v.addRow(k, g, status.Denied, reason, tally)
}

// promoter is a VM as the package room knows it.
type promoter struct{ *VM }

// Promote puts a forward in the place of a row for which there is room.
func (p promoter) Promote(r *room.Row) {
	r.GiveUp()
	v, t := p.VM, p.table
	of := policy.Port(r.Key.Proto, r.Key.Port)
	g := v.policy().Decide(v.name, of, t.others(v.announced, v.started, of), v.gone.On(of), v.guest.Route().Reach, func() {}).Groups[r.Key]
	if g == nil {
		return // something else was announced, and is being decided on
	}
	v.dropRow(r)
	v.open(r.Key, g, r.Tally())
}

// outOfRoom gives a binding that met a limit its state. What has no other makes place
// for a row.
func (t *Table) outOfRoom(b *binding, err error) {
	if b.seat.Opened() == 0 {
		b.Shelve(err.Error())
		return
	}
	b.become(status.Denied, err.Error())
	b.publish()
	b.roomless = true
	b.vm.room.Waiting(b)
	b.vm.outOfRoom(b.key.Port, b.reason)
}

// outOfRoom tells the log of the first port of a VM that met a limit.
func (v *VM) outOfRoom(port uint16, reason string) {
	if v.room.IsFirst() {
		v.table.log.Warn("ports stay closed", "vm", v.name, "port", port, "reason", reason)
	}
}

// Waits reports whether a binding waits for a limit alone, while the forward's other is open.
func (b *binding) Waits() bool { return b.roomless && b.claimed && b.seat.Opened() > 0 }

// Need is the room that a binding wants.
func (b *binding) Need() room.Need { return b.seat.Need(len(b.wanted)) }

// Retry binds a claim if that can be.
func (b *binding) Retry() {
	if t := b.vm.table; t.bind(b, false) {
		t.unclaim(b)
	}
}
