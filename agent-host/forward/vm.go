package forward

import (
	"net/netip"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/byport"
	"github.com/rum-vm/rum-agent/agent-host/forward/contest"
	"github.com/rum-vm/rum-agent/agent-host/forward/datagrams"
	"github.com/rum-vm/rum-agent/agent-host/forward/excerpt"
	"github.com/rum-vm/rum-agent/agent-host/forward/held"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/reverse"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/forward/suggest"
	"github.com/rum-vm/rum-agent/agent-host/forward/told"
	"github.com/rum-vm/rum-agent/agent-host/forward/turns"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/latency"
)

// VM is a virtual machine's part of a [Table]. Its methods may be called from
// several goroutines at once.
type VM struct {
	table   *Table
	name    string
	guest   *serve.Guest // whose route is set under table.mu
	udp     *datagrams.Flows
	reverse *reverse.Set

	// The rest is guarded by table.mu.
	started   bool                // something, if only nothing, was announced
	announced []portlist.Listener // last, sorted
	stale     policy.Ports        // where the forwards are not what is wanted
	heard     time.Time           // when it was announced what they are to be; the zero time if it was not
	since     policy.Announced
	released  policy.Released
	gone      held.Listeners // no more announced, and held
	forwards  byport.Map[*forward]
	room      *room.VM
	loopback  netip.Addr // the zero Addr for none
	path      string     // that of new connections, while there is one
	decided   int        // how often, by the newest rules and announcement
	suggested suggest.Ports[*forward]
	owns      map[policy.Key]*binding  // to the own address, by [policy.Key.Anywhere]
	named     contest.Wishes[*binding] // what rules name; see takePrecedence
	chosen    *excerpt.Choice[port]    // for a summary; nil before the first
	untold    bool                     // the guest is to be told what became of its ports
	detected  latency.Counter
	told      told.Guest // the teller's
	closed    bool
}

// Add returns the VM of that name with no forwards; static ones come with the
// first announcement, which may be empty. Names are for people: they
// are shown where the VM holds an address that another one wants.
func (t *Table) Add(name string) *VM {
	v := &VM{table: t, name: name, suggested: make(suggest.Ports[*forward]), owns: make(map[policy.Key]*binding), named: make(contest.Wishes[*binding])}
	v.guest = t.server.Guest(name)
	v.udp = datagrams.New(v.guest)
	v.reverse = reverse.New(v.guest, t.cfg.ControlSocket)
	t.mu.Look(func() {
		v.room = t.room.Add(promoter{v})
		t.vms = append(t.vms, v)
		v.setReverse()
	})
	t.moveOn()
	return v
}

// Budget is what messages of the VM may cost that serve no client, over all of its links.
func (v *VM) Budget() *budget.Budget { return v.guest.Budget() }

// SetLink says that connections go through l from now on, or, with nil, that
// the link is lost. Forwards and running connections stay.
func (v *VM) SetLink(l *serve.Link) {
	v.table.decideAnew(func() []*VM {
		r := *v.guest.Route()
		if r.Link != l {
			v.reverse.SetLink(l)
			v.changed()
		}
		for _, f := range v.forwards.All() {
			f.service.Look()
		}
		wasGone := r.Gone
		r.Link, r.Gone = l, r.Gone && l == nil
		v.reroute(&r)
		if v.closed || r.Gone == wasGone {
			return nil
		}
		v.stale.All = true
		return []*VM{v}
	})
}

// LinkGone says that the link is not expected back soon: until there is one, what is not
// reached at the bridge address is not forwarded, which without such an address is
// everything.
func (v *VM) LinkGone() {
	v.table.decideAnew(func() []*VM {
		r := *v.guest.Route()
		if v.closed || r.Link != nil || r.Gone {
			return nil
		}
		r.Gone = true
		v.reroute(&r)
		v.forgetUnreached(&r)
		v.stale.All = true
		return []*VM{v}
	})
}

// forgetUnreached forgets what was announced, if there is no way to it. It needs table.mu.
func (v *VM) forgetUnreached(r *serve.Route) {
	if r.Gone && !r.Bridge.IsValid() {
		v.noteGone(nil, v.announced)
		v.announced, v.since, v.released = nil, policy.Announced{}, nil
	}
}

// Bridge is the address under which the host reaches the VM without an agent; the zero
// Addr while none is known.
func (v *VM) Bridge() netip.Addr { return v.guest.Route().Bridge }

// SetBridge gives the address under which the host reaches the VM without an
// agent, by another host where by is not nil. The zero Addr says that there is none. What only
// that reaches in the guest is forwarded while there is one.
func (v *VM) SetBridge(ip netip.Addr, by serve.DialBridge) {
	ip = ip.Unmap()
	v.table.decideAnew(func() []*VM {
		r := *v.guest.Route()
		if r.Bridge == ip || v.closed {
			return nil
		}
		r.Bridge, r.DialBridge = ip, by
		v.reroute(&r)
		v.forgetUnreached(&r)
		if !r.Gone && !slices.ContainsFunc(v.announced, policy.OnInterface) {
			return nil
		}
		v.stale.All = true
		return []*VM{v}
	})
}

// Announce makes the forwards be those for listeners, which is everything that
// listens in the guest, and the static ones. What is there already stays as it
// is: listeners are not reopened and connections not touched. The slice is kept, and
// must not be changed. Listeners of
// forwards that go are closed on return; their connections go on until they end
// by themselves.
func (v *VM) Announce(listeners []portlist.Listener) {
	t := v.table
	sorted := listeners
	if !slices.IsSortedFunc(sorted, portlist.Compare) {
		sorted = slices.Clone(listeners)
		slices.SortStableFunc(sorted, portlist.Compare)
	}
	t.decideAnew(func() []*VM {
		if v.closed {
			return nil
		}
		added, removed := portlist.Diff(v.announced, sorted)
		v.noteGone(sorted, removed)
		v.stale.Add(added)
		v.stale.Add(removed)
		v.since = v.since.Next(sorted, time.Now())
		v.released.End(v.announced, added)
		v.stale.All = v.stale.All || !v.started
		v.announced, v.started = sorted, true
		return []*VM{v}
	})
}

// OwnListener reports whether what is announced on a port is a listener of this program.
func (v *VM) OwnListener(proto string, port uint16) (own bool) {
	v.table.mu.Look(func() {
		own = slices.ContainsFunc(policy.Port(proto, port).OfSorted(v.announced), v.table.host.IsOwn)
	})
	return own
}

// Services are those of a port of the guest that are open on the host.
func (v *VM) Services(proto string, port uint16) (open []*serve.Service) {
	v.table.mu.Look(func() {
		for _, f := range v.forwards.On(policy.Port(proto, port)) {
			if f.main.open != nil {
				open = append(open, f.service)
			}
		}
	})
	return open
}

// Service serves connections to a TCP port that come to no host address: as its forward, or where
// rules keep it in by itself. It is nil where nothing listens.
func (v *VM) Service(port uint16) (s *serve.Service) {
	k := policy.Key{Proto: "tcp", Port: port}
	v.table.mu.Look(func() {
		for o, f := range v.forwards.On(policy.Port(k.Proto, port)) {
			if s == nil || o == o.Localhost() {
				s = f.service
			}
		}
		if g := v.table.others(v.announced, v.started, policy.Port(k.Proto, port)); s == nil && len(g) > 0 {
			s = v.guest.Service(k, nil)
			s.Follow(&policy.Group{Guest: g})
		}
	})
	return s
}

// Carried is the service of the TCP port, or of the unix socket, whose port (0 of a socket) and label a
// client means: of the lowest such port, and of localhost's before others. It is one of which the
// rules say that it is for the host, whether or not it has its addresses there; else nil.
func (v *VM) Carried(meant func(port uint16, label string) bool) (s *serve.Service) {
	v.table.mu.Look(func() {
		for k, f := range v.forwards.All() {
			if k.Proto == "udp" || f.main.state == status.Denied || !meant(k.Port, f.decision.Label) {
				continue
			}
			if s == nil || k.Compare(s.Key()) < 0 {
				s = f.service
			}
		}
	})
	return s
}

// Close withdraws all forwards of the VM. Running connections go on.
func (v *VM) Close() {
	t := v.table
	t.mu.InTurns(func(u turns.Turn) bool {
		if !v.closed {
			v.closed = true
			v.udp.Close()
			v.gone.Stop()
			t.vms = slices.DeleteFunc(t.vms, func(o *VM) bool { return o == v })
			t.room.Remove(v.room)
		}
		return v.withdrawBut(policy.Wanted{}, policy.Ports{All: true}, u) || t.handOver(u)
	})
}
