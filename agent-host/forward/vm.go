package forward

import (
	"cmp"
	"context"
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Link is how connections reach a VM through its guest agent.
type Link struct {
	// Open starts a connection to the target in the guest, sends early along,
	// and tells which path it takes. It does not keep early.
	Open func(ctx context.Context, t wire.Target, early []byte) (guest relay.Conn, path string, err error)
	// RelayNow is Open and then [tunnel.Relay], without waiting for anything. It
	// reports false, having done nothing, if that cannot be; nil is for never.
	RelayNow func(c *relay.Client, t wire.Target, early []byte, n *relay.Counters, done func(error)) bool
	// Silent reports that the guest gives no sign of life, so that a new
	// connection had better go another way.
	Silent func() bool
	// Path is what Open is expected to take.
	Path string
	// Reverse makes the listeners in the guest be these. It does not wait. nil
	// where there can be none.
	Reverse func([]*tunnel.Reverse) error
	// Tell tells the guest what became of its ports. It does not wait. nil where
	// that cannot be told.
	Tell func([]wire.PortState)
}

// route is how a VM is reached now. It is replaced, never changed.
type route struct {
	link   *Link      // nil while there is none
	bridge netip.Addr // not valid while it is not known
	gone   bool       // the link is not expected back soon
}

// VM is a virtual machine's part of a [Table]. Its methods may be called from
// several goroutines at once.
type VM struct {
	table *Table
	name  string
	route atomic.Pointer[route] // stored under table.mu
	udp   *udpFlows
	work  *budget.Budget
	dials chan struct{} // bounds those over the bridge that wait

	// The rest is guarded by table.mu.
	started   bool                 // something, if only nothing, was announced
	announced []portwatch.Listener // last, sorted
	stale     ports                // where the forwards are not what is wanted
	gone      []gone               // no more announced, and held
	goneTimer *time.Timer          // runs while there are such; nil before
	forwards  map[key]*forward
	rows      rows // what has no host addresses
	reverse   []*reverse
	loopback  netip.Addr // the zero Addr for none
	decided   int        // how often, by the newest rules and announcement
	bound     int        // forwards that have host addresses
	used      int        // descriptors of those
	consumers map[consumerKey]*consumer
	suggested map[suggested]*forward
	named     map[spot]map[hostAddr][]*binding // what rules name; see takePrecedence
	users     map[uint32]int                   // forwards that have host addresses, by the guest's user
	waits     int                              // rows that wait for a limit
	halves    []*binding                       // that do, of forwards with others; some of them no longer
	full      bool                             // which the log has heard of
	untold    bool                             // the guest is to be told what became of its ports
	told      uint64                           // the hash of that, as it was told last, and over which link
	toldTo    *Link
	closed    bool
}

// key tells the forwards of a VM apart: listeners on one port that rules send
// to the same place are one, if all are what the guest calls localhost. Another
// address may be another service, and is a forward of its own.
type key struct {
	proto    string     // "tcp", "udp", or "unix" for a socket of the guest
	port     uint16     // 0 for a socket
	addr     netip.Addr // not valid for localhost, and what stays in the guest
	socket   string     // its path
	decision string
}

func (k key) compare(o key) int {
	if c := cmp.Compare(k.proto, o.proto); c != 0 {
		return c
	}
	if c := cmp.Compare(k.port, o.port); c != 0 {
		return c
	}
	return cmp.Or(k.addr.Compare(o.addr), cmp.Compare(k.decision, o.decision), cmp.Compare(k.socket, o.socket))
}

// Add returns the VM of that name with no forwards; static ones come with the
// first announcement, which may be empty. Names are for people: they
// are shown where the VM holds an address that another one wants.
func (t *Table) Add(name string) *VM {
	v := &VM{table: t, name: name, forwards: make(map[key]*forward), consumers: make(map[consumerKey]*consumer), users: make(map[uint32]int), suggested: make(map[suggested]*forward), named: make(map[spot]map[hostAddr][]*binding)}
	v.dials = make(chan struct{}, dial.MaxPending)
	v.work = budget.New(budget.Link)
	v.route.Store(&route{})
	v.udp = newUDPFlows(v)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.vms = append(t.vms, v)
	v.decideReverse()
	return v
}

// Budget is what the VM may cost that serves no client, over all of its links and over
// the bridge.
func (v *VM) Budget() *budget.Budget { return v.work }

// SetLink says that connections go through l from now on, or, with nil, that
// the link is lost. Forwards and running connections stay.
func (v *VM) SetLink(l *Link) {
	v.table.decideAnew(func() []*VM {
		r := *v.route.Load()
		if r.link != l {
			v.forgetReverse()
			v.tellReverse(l)
			v.changed()
		}
		for _, f := range v.forwards {
			f.holding().look()
		}
		wasGone := r.gone
		r.link, r.gone = l, r.gone && l == nil
		v.route.Store(&r)
		if v.closed || r.gone == wasGone {
			return nil
		}
		v.stale.all = true
		return []*VM{v}
	})
}

// LinkGone says that the link is not expected back soon: what only that reaches in the
// guest is not forwarded until there is one.
func (v *VM) LinkGone() {
	v.table.decideAnew(func() []*VM {
		r := *v.route.Load()
		if v.closed || r.link != nil || r.gone {
			return nil
		}
		r.gone = true
		v.route.Store(&r)
		v.stale.all = true
		return []*VM{v}
	})
}

// SetBridge gives the address under which the host reaches the VM without an
// agent. The zero Addr says that there is none. What only that reaches in the guest
// is forwarded while there is one.
func (v *VM) SetBridge(ip netip.Addr) {
	ip = ip.Unmap()
	v.table.decideAnew(func() []*VM {
		r := *v.route.Load()
		if r.bridge == ip || v.closed {
			return nil
		}
		r.bridge = ip
		v.route.Store(&r)
		if !r.gone && !slices.ContainsFunc(v.announced, onInterface) {
			return nil
		}
		v.stale.all = true
		return []*VM{v}
	})
}

// Announce makes the forwards be those for listeners, which is everything that
// listens in the guest, and the static ones. What is there already stays as it
// is: listeners are not reopened and connections not touched. The slice is kept, and
// must not be changed. Listeners of
// forwards that go are closed on return; their connections go on until they end
// by themselves.
func (v *VM) Announce(listeners []portwatch.Listener) {
	t := v.table
	sorted := listeners
	if !slices.IsSortedFunc(sorted, portwatch.Compare) {
		sorted = slices.Clone(listeners)
		slices.SortStableFunc(sorted, portwatch.Compare)
	}
	t.decideAnew(func() []*VM {
		if v.closed {
			return nil
		}
		v.noteGone(sorted)
		added, removed := portwatch.Diff(v.announced, sorted)
		v.stale.add(added)
		v.stale.add(removed)
		v.stale.all = v.stale.all || !v.started
		v.announced, v.started = sorted, true
		return []*VM{v}
	})
}

// Close withdraws all forwards of the VM. Running connections go on.
func (v *VM) Close() {
	t := v.table
	t.inTurns(func(u turn) bool {
		if !v.closed {
			v.closed = true
			v.udp.cancel()
			if v.goneTimer != nil {
				v.goneTimer.Stop()
			}
			t.vms = slices.DeleteFunc(t.vms, func(o *VM) bool { return o == v })
		}
		return v.withdrawBut(wanted{}, ports{all: true}, u) || t.handOver(u)
	})
}

// Status returns the VM's forwards by protocol and port.
func (v *VM) Status() []control.Forward {
	all, _ := v.Summary(0)
	return all
}

// Count is how many forwards there are.
func (v *VM) Count() (n int) {
	v.table.look(func() { n = len(v.forwards) + v.rows.n + len(v.reverse) })
	return n
}

// shownAtOnce is how many ports are told of while the table is locked.
const shownAtOnce = 256

// Summary is Status of so many forwards, and counts the others by state. Shown are
// those of programs and rules that have few: a port among a thousand says little.
// 0 rows is all.
func (v *VM) Summary(rows int) (shown []control.Forward, more map[string]int) {
	t := v.table
	var all []port
	t.look(func() {
		if room := max(0, rows-len(v.reverse)); rows > 0 && len(v.forwards)+v.rows.n > room {
			all, more = v.first(room)
		} else {
			all = slices.AppendSeq(make([]port, 0, len(v.forwards)+v.rows.n), v.ports())
		}
		shown = make([]control.Forward, 0, len(v.reverse)+len(all))
		for _, r := range v.reverse {
			shown = append(shown, r.status())
		}
		if len(all) <= shownAtOnce {
			shown, all = v.show(shown, all), nil
		}
	})
	slices.SortFunc(all, port.compare) // the rows are larger
	for some := range slices.Chunk(all, shownAtOnce) {
		t.look(func() { shown = v.show(shown, some) })
		rest()
	}
	slices.SortFunc(shown, func(a, b control.Forward) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port),
			cmp.Compare(a.State, b.State), slices.Compare(a.Host, b.Host))
	})
	return shown, more
}

// first are the n ports of those who have fewest, and how many others there are by state.
func (v *VM) first(n int) (all []port, others map[string]int) {
	compare := func(a, b port) int {
		_, ac := a.of()
		_, bc := b.of()
		if c := cmp.Compare(ac.ports, bc.ports); c != 0 {
			return c
		}
		return a.compare(b)
	}
	others = make(map[string]int)
	all = least(v.ports(), n, compare, func(p port) { others[p.state()]++ })
	return all, others
}

// least are the n smallest of all, sorted. It is quicker than to sort thousands of which
// few are wanted.
func least[T any](all iter.Seq[T], n int, compare func(a, b T) int, other func(T)) []T {
	some := make([]T, 0, n+1)
	for x := range all {
		if len(some) == n && (n == 0 || compare(x, some[n-1]) >= 0) {
			other(x)
			continue
		}
		at, _ := slices.BinarySearchFunc(some, x, compare)
		some = slices.Insert(some, at, x)
		if len(some) > n {
			other(some[n])
			some = some[:n]
		}
	}
	return some
}

// port is a forward, or a row.
type port struct {
	*forward
	row *row
}

// ports are all of a VM's. They need table.mu, as all that is done with them but for
// their order.
func (v *VM) ports() iter.Seq[port] {
	return func(yield func(port) bool) {
		for _, f := range v.forwards {
			if !yield(port{forward: f}) {
				return
			}
		}
		for r := range v.rows.each() {
			if !yield(port{row: r}) {
				return
			}
		}
	}
}

func (p port) of() (key, *consumer) {
	if p.row != nil {
		return p.row.key, p.row.consumer
	}
	return p.key, p.consumer
}

func (p port) state() string {
	if p.row != nil {
		return p.row.state
	}
	return p.forward.state()
}

func (p port) compare(o port) int {
	a, _ := p.of()
	b, _ := o.of()
	if c := cmp.Compare(a.port, b.port); c != 0 && a.proto == b.proto {
		return c
	}
	return cmp.Or(cmp.Compare(a.proto, b.proto), cmp.Compare(a.port, b.port))
}

// show appends what ports are now, if they are there any more.
func (v *VM) show(shown []control.Forward, all []port) []control.Forward {
	for _, p := range all {
		k, _ := p.of()
		if f := v.forwards[k]; f != nil {
			shown = append(shown, f.status())
		} else if r := v.rows.get(k); r != nil {
			shown = append(shown, r.status())
		}
	}
	return shown
}
