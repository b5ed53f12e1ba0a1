package forward

import (
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/forward/suggest"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// forward is a guest port and the host addresses where it is.
type forward struct {
	vm  *VM
	key policy.Key

	// Guarded by table.mu.
	decision  policy.Decision
	process   string
	uid       uint32
	expected  bool // static, and nothing is seen to listen there
	held      bool // nothing is seen to listen there any more, for a moment
	main      *binding
	own       *binding // nil where that has no place
	shelved   bool     // a row has taken its place
	seat      *room.Seat
	suggested suggest.Port // the zero value while status suggests none
	life

	service *serve.Service // what its clients are served by, without table.mu
}

// newForward needs the tally of the port's earlier connections; nil for none.
func newForward(v *VM, k policy.Key, g *policy.Group, earlier *serve.Tally) *forward {
	f := &forward{vm: v, key: k, decision: g.Decision, service: v.guest.Service(k, earlier), life: life{announced: v.since.Since(g.Guest, time.Now())}}
	f.describe(g)
	f.main = newBinding(f, false, host.Ruled(f.key, &f.decision)...)
	f.own = f.ownBinding()
	f.seat = v.room.Join(f, g)
	return f
}

// describe takes over what an announcement says and what needs no new listener.
func (f *forward) describe(g *policy.Group) {
	if f.expected != g.Expected || f.held != g.Held {
		f.vm.changed()
	}
	f.service.Follow(g)
	nameless := f.published != "" && f.process == ""
	f.process, f.uid, f.expected, f.held = g.Process, g.UID, g.Expected, g.Held
	f.decision = g.Decision
	if nameless && f.process != "" {
		f.vm.table.cfg.Events.Named(f.event("", ""))
	}
}

// status needs table.mu.
func (f *forward) status() status.Forward {
	st := status.Forward{
		Proto: f.key.Proto, Port: f.key.Port, Process: f.process, Rule: f.decision.Rule, Label: f.decision.Label, Open: f.decision.Open != "",
		State: f.state(), AnnouncedAt: f.announced, Since: f.since, Reason: f.reason(), Host: []string{}, Listening: []string{}, Guest: []string{},
	}
	f.service.Tally.Show(&st)
	for _, h := range f.main.insteadOf {
		st.InsteadOf = append(st.InsteadOf, h.String())
	}
	if f.key.Socket != "" {
		st.Guest = append(st.Guest, f.key.Socket)
	}
	if !f.expected && !f.held {
		for _, l := range f.service.Listeners() {
			st.Guest = append(st.Guest, l.Addr.String())
		}
	}
	for _, b := range f.bindings() {
		if !b.own || b.open != nil {
			st.Host = append(st.Host, b.hosts()...)
		}
		if b.open != nil {
			st.Listening = append(st.Listening, b.hosts()...)
			st.Path = f.service.Path()
		}
	}
	return st
}
