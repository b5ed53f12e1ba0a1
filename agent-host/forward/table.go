package forward

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/rum-vm/rum-agent/portwatch"
)

// Config is what a [Table] needs. Its zero value forwards every TCP port to
// the same port on loopback.
type Config struct {
	// Rules decides what is forwarded where; nil is [SamePort].
	Rules Rules
	// Holder names who has a host address that is in use, or gives "" when
	// that cannot be found; nil is [portwatch.Holder].
	Holder func(proto string, addr netip.AddrPort) string
	// Listen opens a host listener; nil is [net.ListenTCP].
	Listen func(addr netip.AddrPort) (*net.TCPListener, error)
	// Log hears of forwards that come and go; nil is silence.
	Log *slog.Logger
}

// Table holds the forwards of all VMs.
type Table struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // accept loops, connections and the claim keeper

	mu      sync.Mutex
	bound   map[netip.AddrPort]*forward
	claims  []*forward // wanted but not bound, oldest first
	keeping bool       // the claim keeper runs
	closed  bool
}

// New returns an empty table. Close it to release what it holds.
func New(cfg Config) *Table {
	if cfg.Rules == nil {
		cfg.Rules = SamePort
	}
	if cfg.Holder == nil {
		cfg.Holder = portwatch.Holder
	}
	if cfg.Listen == nil {
		cfg.Listen = func(addr netip.AddrPort) (*net.TCPListener, error) {
			return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Table{cfg: cfg, log: cfg.Log, bound: make(map[netip.AddrPort]*forward)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Close closes all listeners, resets all connections and waits until nothing
// of the table runs any more. Calls on its VMs do nothing from then on.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	for _, f := range t.bound {
		f.release()
	}
	t.bound, t.claims = nil, nil
	t.mu.Unlock()
	t.cancel()
	t.wg.Wait()
}
