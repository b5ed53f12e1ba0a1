package serve

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/dial"
)

// Server is what the connections of all VMs have in common. Its methods may be called by
// several goroutines at once.
type Server struct {
	log      *slog.Logger
	isOurs   func(proto string, addr netip.AddrPort) bool
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	shortage shortage
}

// New returns a server. isOurs reports whether what goes to an address would come back to a
// listener of this program.
func New(log *slog.Logger, isOurs func(proto string, addr netip.AddrPort) bool) *Server {
	s := &Server{log: log, isOurs: isOurs}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close resets all connections, and waits until none is left and no function that was given
// to Go runs any more.
func (s *Server) Close() {
	s.cancel()
	s.wg.Wait()
}

// Go runs a function that Close waits for, and that has to end with [Server.Context].
func (s *Server) Go(f func()) { s.wg.Go(f) }

// Context ends with Close.
func (s *Server) Context() context.Context { return s.ctx }

// Guest is a VM as its clients reach it.
type Guest struct {
	*Server
	name string
	work *budget.Budget // for messages of its links that serve no client
	// datagrams is for those that serve nobody, over its links and the bridge.
	datagrams *budget.Budget
	route     atomic.Pointer[Route]
	dials     chan struct{} // bounds those over the bridge that wait
}

// Guest returns the VM of that name, to which there is no way yet.
func (s *Server) Guest(name string) *Guest {
	g := &Guest{Server: s, name: name, work: budget.New(budget.Link), datagrams: budget.New(budget.Datagrams), dials: make(chan struct{}, dial.MaxPending)}
	g.route.Store(&Route{})
	return g
}

// Name is the VM's.
func (g *Guest) Name() string { return g.name }

// Budget is what messages of the VM may cost that serve no client, over all of its links.
func (g *Guest) Budget() *budget.Budget { return g.work }

// DatagramBudget is what datagrams of the VM may cost that serve nobody, over its links and
// the bridge.
func (g *Guest) DatagramBudget() *budget.Budget { return g.datagrams }

// Route is how the VM is reached now. It is not to be changed.
func (g *Guest) Route() *Route { return g.route.Load() }

// SetRoute has new connections go another way.
func (g *Guest) SetRoute(r *Route) { g.route.Store(r) }

// Log is where what happens to connections goes.
func (g *Guest) Log() *slog.Logger { return g.log }

// IsOurs reports whether what goes to an address would come back to a listener of this program.
func (g *Guest) IsOurs(proto string, addr netip.AddrPort) bool { return g.isOurs(proto, addr) }
