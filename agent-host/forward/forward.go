package forward

import (
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/relay"
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
	opened    int      // of the two
	shelved   bool     // a row has taken its place
	consumer  *consumer
	at        int // in consumer.bound
	suggested suggested

	// Read by connections without a lock.
	guest  atomic.Pointer[[]portlist.Listener]
	manner atomic.Pointer[manner]

	*tally
}

// tally is what is known of the connections of a guest port.
type tally struct {
	counters relay.Counters
	active   atomic.Int64  // connections, or UDP flows
	total    atomic.Uint64 // of them
	dropped  atomic.Uint64 // datagrams
	carried  atomic.Pointer[carried]
	lastErr  lastError
	refused  refusals
}

func (n *tally) show(st *status.Forward) {
	st.ConnectionsActive, st.ConnectionsTotal = n.active.Load(), n.total.Load()
	st.BytesIn, st.BytesOut, st.Dropped = n.counters.In.Load(), n.counters.Out.Load(), n.dropped.Load()
	n.lastErr.show(st)
}

// manner is how a rule wants clients to be served.
type manner struct {
	proxyProtocol bool
	hold          time.Duration
	holding       *holding // nil where there is no hold, and never was
}

// carried is what carried a forward's last connection.
type carried struct {
	link *Link // nil for the bridge
	path string
}

// newForward needs the tally of the port's earlier connections; nil for none.
func newForward(v *VM, k policy.Key, g *policy.Group, earlier *tally) *forward {
	f := &forward{vm: v, key: k, decision: g.Decision, tally: earlier}
	if f.tally == nil {
		f.tally = &tally{}
	}
	f.describe(g)
	f.main = newBinding(f, false, f.ruled()...)
	f.own = f.ownBinding()
	f.consumer = v.join(consumerOf(g))
	return f
}

// describe takes over what an announcement says and what needs no new listener.
func (f *forward) describe(g *policy.Group) {
	if f.expected != g.Expected || f.held != g.Held {
		f.vm.changed()
	}
	guest := g.Guest // without the rest of the group
	f.guest.Store(&guest)
	m := manner{proxyProtocol: g.Decision.ProxyProtocol, hold: g.Decision.Hold, holding: f.holding()}
	if m.hold > 0 && m.holding == nil {
		m.holding = newHolding()
	}
	if was := f.manner.Load(); was == nil || *was != m {
		f.manner.Store(&m)
	}
	m.holding.look()
	f.refused.forget()
	f.process, f.uid, f.expected, f.held = g.Process, g.UID, g.Expected, g.Held
	f.decision.Hold = g.Decision.Hold
	f.decision.Rule, f.decision.Label, f.decision.Reason = g.Decision.Rule, g.Decision.Label, g.Decision.Reason
}

// holding is what clients wait by; nil where none ever could.
func (f *forward) holding() *holding {
	if m := f.manner.Load(); m != nil {
		return m.holding
	}
	return nil
}

// status needs table.mu.
func (f *forward) status() status.Forward {
	st := status.Forward{
		Proto: f.key.Proto, Port: f.key.Port, Process: f.process, Rule: f.decision.Rule, Label: f.decision.Label,
		State: f.state(), Reason: f.reason(), Host: []string{}, Listening: []string{}, Guest: []string{},
	}
	f.tally.show(&st)
	if f.key.Socket != "" {
		st.Guest = append(st.Guest, f.key.Socket)
	}
	if !f.expected && !f.held {
		for _, l := range *f.guest.Load() {
			st.Guest = append(st.Guest, l.Addr.String())
		}
	}
	for _, b := range f.bindings() {
		if !b.own || b.open != nil {
			st.Host = append(st.Host, b.hosts()...)
		}
		if b.open != nil {
			st.Listening = append(st.Listening, b.hosts()...)
			st.Path = f.path()
		}
	}
	return st
}

// path is what carried the last connection if that would carry the next one
// too, else what would.
func (f *forward) path() string {
	r := f.vm.route.Load()
	switch {
	case r.link != nil && !r.link.Silent() && !f.bridgeFirst(r):
		if c := f.carried.Load(); c != nil && c.link == r.link {
			return c.path
		}
		return r.link.Path
	case r.Bridge.IsValid() && f.onBridge(r.Bridge) == nil:
		return pathBridge
	}
	return ""
}
