package forward

import (
	"cmp"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// What happens to forwards is published here, under table.mu: it takes a moment. Told of is
// the state of the rule's addresses; what a rule keeps in the guest is nothing that happens.

// life is the state of a forward as it changed last, and as it was published last.
type life struct {
	announced time.Time // when what listens was, or when the forward began where nothing does
	since     time.Time // when it got the state that it has
	lasted    time.Duration
	published string
}

// moved notes that the state of a forward has changed.
func (l *life) moved() {
	now := time.Now()
	if !l.since.IsZero() {
		l.lasted = now.Sub(l.since)
	}
	l.since = now
}

// publish tells of a binding's state if that is another than it was told to be.
func (b *binding) publish() {
	f, was := b.forward, b.forward.published
	if b.own || b.state == was {
		return
	}
	f.published = b.state
	e := f.event(events.Denied, cmp.Or(b.reason, b.because))
	switch {
	case b.state == status.Active && was == status.Claim:
		e.Kind = events.Claimed
	case b.state == status.Active:
		e.Kind = events.Forwarding
	case b.state == status.Claim:
		e.Kind = events.Claim
	}
	if was == "" {
		e.AfterSeconds = 0
	}
	b.vm.table.cfg.Events.Publish(e)
}

// publishEnd tells that a forward, or what was to be one, is there no more.
func (f *forward) publishEnd() {
	if f.published != "" {
		f.moved()
		f.vm.table.cfg.Events.Publish(f.event(events.Stopped, ""))
		f.published = ""
	}
}

func (f *forward) event(kind, words string) events.Event {
	return events.Event{
		Kind: kind, VM: f.vm.name, Proto: f.key.Proto, Port: f.key.Port, Socket: f.key.Socket,
		Host: f.main.hosts(), Process: f.process, Label: f.decision.Label, Rule: f.decision.Rule, Open: f.decision.Open, Words: words, AfterSeconds: f.lasted.Seconds(),
	}
}

// publishRow tells of a port that a limit keeps from being forwarded.
func (v *VM) publishRow(kind string, k policy.Key, state, words string) {
	if state == status.Denied {
		v.table.cfg.Events.Publish(events.Event{Kind: kind, VM: v.name, Proto: k.Proto, Port: k.Port, Socket: k.Socket, Words: words})
	}
}

// reroute has new connections go another way, and tells if that is by another path.
func (v *VM) reroute(r *serve.Route) {
	v.guest.SetRoute(r)
	path := v.path
	switch {
	case r.Link != nil:
		path = r.Link.Path
	case r.Bridge.IsValid():
		path = serve.PathBridge
	}
	if v.path != "" && path != v.path && v.forwards.Len() > 0 {
		v.table.cfg.Events.Publish(events.Event{Kind: events.PathChanged, VM: v.name, Words: "from " + v.path + " to " + path})
	}
	v.path = path
}
