package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/cilium/ebpf/rlimit"
	"github.com/coreos/go-systemd/v22/daemon"

	guestagent "github.com/rum-vm/rum-agent/agent-guest"
	"github.com/rum-vm/rum-agent/agent-guest/logring"
	"github.com/rum-vm/rum-agent/agent-guest/upgrade"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/packagers"
	"github.com/rum-vm/rum-agent/tunnel/peerlog"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// logGrace is how long the last lines of the log may take.
const logGrace = time.Second

// serve runs the agent until ctx ends.
func serve(ctx context.Context, o options, stderr io.Writer) error {
	endpoints, err := o.endpoints()
	if err != nil {
		return err
	}
	shareProcessors(endpoints)
	lockMemory()
	var key []byte
	if o.keyFile != "" {
		if key, err = readKey(o.keyFile); err != nil {
			return err
		}
	}
	if o.stdio {
		// A host that went away is an error of a write, which ends the link,
		// not a signal that ends the program.
		signal.Ignore(syscall.SIGPIPE)
	}
	recent := new(logring.Ring)
	log, out := peerlog.Open(stderr, o.logLevel, guestagent.LogFrom, slog.NewTextHandler(recent, &slog.HandlerOptions{Level: o.logLevel}))
	defer out.Close(logGrace)
	agent := &guestagent.Agent{
		Listen:     endpoints,
		Stdio:      o.stdio,
		Key:        key,
		Poll:       o.poll,
		Namespaces: o.netns == netnsAll,
		Hosts:      o.hostsKept(endpoints, os.Geteuid() == 0),
		AllowCID:   o.allowCID,
		Version:    versionOrBuild(),
		Log:        log,
		Recent:     recent,
		StatusDir:  os.Getenv(statusDir),
		Upgrades:   upgrader(o, log),
		Ready:      func() { tellSystemd(log) },
	}
	hint := "check --listen; without it the agent listens on vsock port 1021, which takes root and a VM with a vsock device"
	if o.stdio {
		hint = "--stdio is for a host agent at the other end: give rum-host-agent the endpoint exec:COMMAND, with this as the command"
	}
	if agent.Upgrades != nil {
		agent.Upgrades.Resume(ctx)
		agent.Packager = packagers.OfAgent("/", agent.Upgrades.Exe)
	}
	switch err = agent.Run(ctx); {
	case !errors.Is(err, guestagent.ErrRestart):
	case agent.Upgrades.Manager.Once:
		return nil
	default:
		out.Close(logGrace)
		err = syscall.Exec(agent.Upgrades.Exe, os.Args, os.Environ())
	}
	return advise(err, hint)
}

// stateDir is the variable in which systemd would name the directory for what outlives the agent.
const stateDir = "STATE_DIRECTORY"

// upgrader returns what replaces this binary; nil where it has no path.
func upgrader(o options, log *slog.Logger) *upgrade.Upgrader {
	exe, err := os.Executable()
	if err != nil {
		return nil
	}
	u := &upgrade.Upgrader{
		Exe: exe, Version: versionOrBuild(), Dir: filepath.Join(cmp.Or(os.Getenv(stateDir), "/var/lib/rum-agent"), "upgrade"),
		Manager: upgrade.FindManager(), Log: log,
	}
	if u.Manager.Exec() {
		u.Manager.Once = o.stdio && len(o.listen) == 0
	}
	return u
}

// tellSystemd reports readiness, if systemd started this program and waits.
func tellSystemd(log *slog.Logger) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd could not be told that the agent is ready", "error", err)
	}
}

// shareProcessors leaves half of the processors, of those that the cgroup allows, to the
// programs that a relay is between: goroutines that hand work to one another lose more by
// waking another processor than they gain. The relay's loops have places of their own,
// where there will be any: a link over one connection has none. GOMAXPROCS in the
// environment is left alone.
func shareProcessors(endpoints []endpoint.Endpoint) {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	n := max(1, runtime.GOMAXPROCS(0)/2)
	if slices.ContainsFunc(endpoints, endpoint.Endpoint.Many) {
		n += relay.Loops()
	}
	runtime.GOMAXPROCS(n)
}

// lockMemory allows this process the locked memory that the kernel takes for what tells of
// ports: Linux before 5.11 counts BPF maps as such. Where raising the limit is not
// allowed, the limit may do all the same.
func lockMemory() { _ = rlimit.RemoveMemlock() }
