package forward

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/fdstore"
	"github.com/rum-vm/rum-agent/agent-host/forward/contest"
	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/reverse"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/forward/turns"
)

// Config is what a [Table] needs. Its zero value forwards every port to
// the same port on loopback.
type Config struct {
	// Rules decides what is forwarded where; nil is [policy.SamePort].
	Rules policy.Rules
	// Static tells what is to be forwarded although nothing is seen to listen
	// there yet; nil is nothing. Rules decides about that too.
	Static policy.Static
	// Sockets tells which unix sockets of guests are to be forwarded; nil is
	// none.
	Sockets policy.Sockets
	// Names tells which ports of the host rules name, which no forward of another rule takes
	// in the place of its own; nil is none.
	Names policy.Names
	// Reverse tells what is to be open in guests; nil is nothing.
	Reverse reverse.Rules
	// ControlSocket is the path to which this program's control socket is bound, which no
	// reverse rule leads to; empty for none.
	ControlSocket string
	// Holder names who has a host address that is in use, or gives "" when
	// that cannot be found; nil is [portwatch.Holder].
	Holder func(proto string, addr netip.AddrPort) string
	// Listen opens a host listener; nil is [net.ListenTCP].
	Listen func(addr netip.AddrPort) (*net.TCPListener, error)
	// Descriptors is how many host listeners may take of what this process may
	// have open; 0 is half of it.
	Descriptors int
	// Now is the time; nil is [time.Now].
	Now func() time.Time
	// Kept is where listeners are kept while this process is replaced; nil for nowhere.
	Kept *fdstore.Store
	// Events are told what happens to forwards; nil for nobody.
	Events *events.History
	// Log hears of forwards that come and go; nil is silence.
	Log *slog.Logger
}

// Table holds the forwards of all VMs.
type Table struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // the keepers of claims and addresses, and the teller

	server *serve.Server // of connections

	large sync.Mutex // held while much is decided on; see decideAnew

	mu       turns.Lock
	policy   policy.Policy
	reverses reverse.Rules
	vms      []*VM // in the order they were added
	busy     int   // how many times much is decided on, or waits for that
	room     *room.Room
	contests *contest.Contests[*binding] // of what is bound and what waits
	released []host.Spot                 // where something has become free
	watches  []host.Spot                 // where claims are tried again, and when it is whose turn
	watched  map[host.Spot]bool          // those
	host     *host.Addresses
	// overrules are the rules' addresses to which VMs' own addresses give way.
	overrules contest.Wishes[*binding]
	partial   map[*binding]bool // open, but for addresses that this host lacks
	looking   bool              // the address keeper runs
	keeping   bool              // the claim keeper runs
	telling   bool              // the teller runs
}

// New returns an empty table. Close it to release what it holds.
func New(cfg Config) *Table {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Table{
		cfg: cfg, log: cfg.Log, contests: contest.New[*binding](),
		watched: make(map[host.Spot]bool), host: host.New(cfg.Listen, cfg.Holder, cfg.Now, cfg.Kept), room: room.New(cfg.Descriptors),
		overrules: make(contest.Wishes[*binding]), partial: make(map[*binding]bool),
		policy: policy.New(cfg.Rules, cfg.Static, cfg.Sockets, cfg.Names), reverses: cfg.Reverse,
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.server = serve.New(cfg.Log, t.isOurs)
	return t
}

// SetReverse replaces what is to be open in guests. Listeners that stay the same
// are left alone, and connections go on.
func (t *Table) SetReverse(rules reverse.Rules) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reverses = rules
	for _, v := range t.vms {
		v.setReverse()
	}
}

// setReverse needs table.mu.
func (v *VM) setReverse() {
	var rules []reverse.Rule
	if of := v.table.reverses; of != nil {
		rules = of(v.name)
	}
	v.reverse.SetRules(rules)
}

// Leave closes all listeners, here alone if they are kept for the next process. Calls on VMs do
// nothing from then on.
func (t *Table) Leave() {
	t.mu.LockTurn()
	defer t.mu.UnlockTurn()
	t.mu.Close()
	t.host.Leave()
	for _, b := range t.contests.Holders() {
		b.release()
	}
	t.contests, t.vms = contest.New[*binding](), nil
}

// Close leaves, resets all connections and waits until nothing of the table runs any more.
func (t *Table) Close() {
	t.Leave()
	t.cancel()
	t.server.Close()
	t.wg.Wait()
}

// Shortage tells that new connections are reset for want of descriptors, or were
// within the last minute; "" if not.
func (t *Table) Shortage() string { return t.server.Shortage() }

// Listen opens a TCP listener that is this program's and no forward's, unless something has the address. A guest
// that announces it is not believed. Nobody waits for it in a queue: the caller tries again.
func (t *Table) Listen(addr netip.AddrPort) (l net.Listener, err error) {
	h := host.Addr{Proto: "tcp", Addr: addr}
	t.mu.Look(func() {
		if b := t.contests.Opponent(h); b != nil {
			err = fmt.Errorf("%v is held by VM %s, for its port %d", h, b.vm.name, b.key.Port)
			return
		}
		l, err = t.host.ListenHere(h)
	})
	return l, err
}

// isOurs reports whether what goes to an address would come back to the table.
func (t *Table) isOurs(proto string, addr netip.AddrPort) (is bool) {
	t.mu.Look(func() { is = t.contests.Holder(host.Addr{Proto: proto, Addr: addr}) != nil })
	return is
}
