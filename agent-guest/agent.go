package guestagent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/agent-guest/logring"
	"github.com/rum-vm/rum-agent/agent-guest/upgrade"
	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"golang.org/x/sync/errgroup"
)

// Agent serves links to host agents. At least one of Listen and Stdio is needed.
type Agent struct {
	// Listen is where hosts connect.
	Listen []endpoint.Endpoint
	// Stdio serves one link on standard input and output, and ends Run with it.
	Stdio bool
	// Key is what both ends must prove; nil for none.
	Key []byte
	// Poll is the time between two scans where the kernel does not tell of sockets; 0 for
	// portwatch.DefaultInterval.
	Poll time.Duration
	// Namespaces: what listens in other network namespaces, as those of containers, is
	// announced too, where it can be reached from this one.
	Namespaces bool
	// Hosts is the file, as hosts(5) has it, where the host's name is kept; empty for none.
	Hosts string
	// AllowCID are vsock context IDs that may connect beside the host.
	AllowCID []uint32
	// Version is told to hosts, and Packager what [packagers.OfAgent] says of this agent.
	Version, Packager string
	Log               *slog.Logger
	// Recent are the last lines of the log, for hosts that have proved the key; nil for none.
	Recent *logring.Ring
	// StatusDir is where what hosts tell is kept for [ReadStatus], and [OpenURL] is served; "" for nowhere.
	StatusDir string
	// Upgrades replaces the agent's binary by order of hosts that have proved the key; nil for not at all.
	Upgrades *upgrade.Upgrader
	// Ready is called once every endpoint is open; nil for nobody to tell.
	Ready func()
}

// LogFrom is the attribute of log lines that says who caused them: "host", where
// anybody there may have.
const LogFrom = "from"

// Run serves until ctx ends, and returns nil then. It fails if an endpoint
// cannot be opened.
func (a *Agent) Run(ctx context.Context) error {
	own := new(portwatch.Own)
	scanner := &portwatch.Scanner{Own: own}
	defer scanner.Close()
	announce := newAnnouncer(portwatch.Watch(scanner, a.Poll, a.Log), a.Log)
	if a.Namespaces {
		announce.elsewhere = announce.watcher.Elsewhere()
	}
	server := &tunnel.Server{
		Config: tunnel.Config{Key: a.Key, AgentVersion: a.Version, Packager: a.Packager, Log: a.Log.With(LogFrom, "host")},
		Source: announce.source,
		Own:    own,
		Also:   announce.contains,
	}

	g, gctx := errgroup.WithContext(ctx)
	server.Itself = a.newItself(gctx, g).open
	var listeners []net.Listener
	for _, e := range a.Listen {
		if !e.Many() {
			continue
		}
		l, err := endpoint.Listen(e, a.AllowCID, a.Log)
		if errors.Is(err, syscall.EAFNOSUPPORT) && len(a.Listen) > 1 {
			// A kernel without vsock; the serial port is what is left.
			a.Log.Warn("not listening", "err", err)
			continue
		}
		if err != nil {
			for _, opened := range listeners {
				_ = opened.Close()
			}
			return err
		}
		a.Log.Info("listening", "endpoint", e)
		listeners = append(listeners, l)
	}
	if a.StatusDir != "" {
		status := &statusKeeper{dir: a.StatusDir, version: a.Version, hosts: server.Hosts, log: a.Log, changed: make(chan struct{}, 1)}
		server.Changed = status.change
		status.write()
		g.Go(func() error { status.run(gctx); return nil })
		opener := newURLOpener(server, a.Log)
		g.Go(func() error { opener.run(gctx, a.StatusDir); return nil })
	}
	if a.Upgrades != nil {
		server.Changed = tellLinked(a.Upgrades.Begin(), server)
	}
	for _, l := range listeners {
		g.Go(func() error { return server.Serve(gctx, l) })
	}
	for _, e := range a.Listen {
		if !e.Many() {
			g.Go(func() error { return serveSerial(gctx, server, e.Path, a.Log) })
		}
	}
	if a.Stdio {
		g.Go(func() error {
			if err := server.ServeLine(gctx, endpoint.Stdio(), false); err != nil {
				return err
			}
			return errStdioEnded
		})
	}
	g.Go(func() error { return announce.run(gctx) })
	if a.Hosts != "" {
		g.Go(func() error { keepHosts(gctx, a.Hosts, a.Log); return nil })
	}
	if a.Ready != nil {
		a.Ready()
	}
	if slices.ContainsFunc(a.Listen, func(e endpoint.Endpoint) bool { return e.Scheme == endpoint.SchemeVsock }) {
		g.Go(func() error { endpoint.Knock(gctx); return nil })
	}
	if err := g.Wait(); ctx.Err() == nil && !errors.Is(err, errStdioEnded) {
		return err
	}
	return nil
}

// errStdioEnded ends the group when the only link of a --stdio agent has ended.
var errStdioEnded = errors.New("standard input has ended")
