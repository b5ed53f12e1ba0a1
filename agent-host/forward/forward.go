package forward

import (
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/tunnel"
)

// forward is a guest port and the host addresses where it is.
type forward struct {
	vm   *VM
	key  key
	done chan struct{} // closed with the listeners

	// Guarded by table.mu.
	decision  Decision
	process   string
	expected  bool // static, and nothing is seen to listen there
	state     string
	reason    string
	told      string // the reason that the log has heard
	holder    holder
	listeners map[hostAddr]io.Closer // none unless active
	// tries are the wanted addresses; the one that failed last comes first, so
	// that a claim does not open and close the others at every attempt.
	tries []hostAddr

	// Read by connections without a lock.
	guest atomic.Pointer[[]netip.AddrPort]

	counters tunnel.Counters
	active   atomic.Int64  // connections, or UDP flows
	total    atomic.Uint64 // of them
	dropped  atomic.Uint64 // datagrams
	carried  atomic.Pointer[carried]
	lastErr  atomic.Pointer[string]
}

// holder is the search for the program that has an address. Its zero value is
// no search.
type holder struct {
	of   hostAddr
	next time.Time // when to look (again)
}

// carried is what carried a forward's last connection.
type carried struct {
	link *Link // nil for the bridge
	path string
}

func newForward(v *VM, k key, d Decision) *forward {
	f := &forward{vm: v, key: k, decision: d, done: make(chan struct{})}
	f.tries = f.wanted()
	return f
}

// describe takes over what an announcement says and what needs no new listener.
func (f *forward) describe(g *group) {
	f.guest.Store(&g.guest)
	f.process, f.expected = g.process, g.expected
	f.decision.Rule, f.decision.Reason = g.decision.Rule, g.decision.Reason
	if f.decision.Verdict != "" {
		f.state, f.reason = f.decision.Verdict, f.decision.Reason
	}
}

// release closes the host listeners. The kernel resets connections that nobody
// has accepted yet.
func (f *forward) release() {
	if f.listeners == nil {
		return
	}
	close(f.done)
	for _, l := range f.listeners {
		l.Close()
	}
	f.listeners = nil
}

// hosts are the addresses that are bound, or those that are wanted.
func (f *forward) hosts() []string {
	out := make([]string, 0, len(f.tries))
	for _, a := range f.wanted() {
		if f.state != control.Active || f.listeners[a] != nil {
			out = append(out, a.String())
		}
	}
	return out
}

// status needs table.mu.
func (f *forward) status() control.Forward {
	st := control.Forward{
		Proto: f.key.proto, Port: f.key.port, Process: f.process, Rule: f.decision.Rule,
		State: f.state, Reason: f.reason, Host: f.hosts(), Guest: []string{},
		ConnectionsActive: f.active.Load(), ConnectionsTotal: f.total.Load(),
		BytesIn: f.counters.In.Load(), BytesOut: f.counters.Out.Load(), Dropped: f.dropped.Load(),
	}
	if f.key.socket != "" {
		st.Guest = append(st.Guest, f.key.socket)
	}
	if !f.expected {
		for _, a := range *f.guest.Load() {
			st.Guest = append(st.Guest, a.String())
		}
	}
	if f.state == control.Active {
		st.Path = f.path()
	}
	if e := f.lastErr.Load(); e != nil {
		st.LastError = *e
	}
	return st
}

// path is what carried the last connection if that would carry the next one
// too, else what would.
func (f *forward) path() string {
	r := f.vm.route.Load()
	switch {
	case r.link != nil && !r.link.Silent():
		if c := f.carried.Load(); c != nil && c.link == r.link {
			return c.path
		}
		return r.link.Path
	case r.bridge.IsValid() && f.onBridge(r.bridge) == nil:
		return pathBridge
	}
	return ""
}

// fail records why a connection was not what it should have been.
func (f *forward) fail(err error) {
	text := err.Error()
	f.lastErr.Store(&text)
}
