package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/browser"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/metrics"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
	"github.com/rum-vm/rum-agent/tunnel/peerlog"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// runOptions are the flags of run.
type runOptions struct {
	*shared
	vms     []string
	libvirt string
	config  string
	level   string
	public  string
	metrics string
}

func newRun(s *shared) *cobra.Command {
	o := runOptions{shared: s}
	c := &cobra.Command{
		Use:   "run [--vm NAME=ENDPOINT]...",
		Short: "Serve VMs until stopped",
		Long: `Serve VMs until stopped: those that run under libvirt, or those given with --vm.

An endpoint is how the agent in the VM is reached: vsock:CID[:PORT],
hybrid:PATH[:PORT], unix:PATH, serial:PATH or exec:COMMAND. After it may come
,bridge=IP, where the host reaches the VM without its agent, and ,key=FILE, the
key that both agents prove; without it, the key that cloudinit or install made
for that name, if there is one.

What is forwarded where is decided by the rules of rum.toml: that of --config for
all VMs, or without it that of the project that rum made the VM for, if this user
has one of that name. A file is read again when it changes, and on SIGHUP; one
with a mistake changes nothing.`,
		Example: "  rum-host-agent run\n  rum-host-agent run --vm dev=vsock:3,bridge=192.168.50.101",
		Args:    atMost(0),
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), c.ErrOrStderr()) },
	}
	// Not a StringSlice: an endpoint may contain commas.
	c.Flags().StringArrayVar(&o.vms, "vm", nil, "a VM to serve, as `NAME=ENDPOINT[,bridge=IP][,key=FILE]`; may be repeated")
	c.Flags().StringVar(&o.libvirt, "libvirt", "", "libvirt `URI` to find VMs at, or none; without --vm the default is\n$LIBVIRT_DEFAULT_URI, else the system's or the user's daemon")
	configFlag(c, &o.config)
	c.Flags().StringVar(&o.public, "status-socket", "", "a second socket, `PATH[:GROUP]`, where the group may see status and events, without\ndirectories, and change nothing")
	c.Flags().StringVar(&o.metrics, "metrics", "", "answer Prometheus at `[HOST]:PORT`, under /metrics; on loopback unless a host is written")
	c.Flags().StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	return c
}

// memoryLimit is from where on memory is collected more eagerly, in bytes. What guests
// may have wait here is less; without it the heap would be twice that.
const memoryLimit = 80 << 20

// logGrace is how long the last lines of the log may take.
const logGrace = time.Second

func (o *runOptions) run(ctx context.Context, stderr io.Writer) error {
	shareProcessors()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return output.Misuse(fmt.Errorf("--log-level %q: want debug, info, warn or error", o.level))
	}
	out := peerlog.NewWriter(stderr)
	defer out.Close(logGrace)
	log := slog.New(peerlog.NewHandler(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}), "vm"))
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	why := userconfig.Which(o.config)
	file, err := userconfig.Open(o.config, userconfig.Remembered(log))
	if err != nil {
		return err
	}
	agent, err := o.agent(file.Current().Rules, log)
	if err != nil {
		return err
	}
	var rum *userconfig.Projects
	if o.config == "" {
		rum = userconfig.NewProjects(agent, agent.Names(), userconfig.Remembered(log), log)
	}
	discovery, err := o.discovery(agent, rum, file.Current().Network.HostOnly, log)
	if err != nil {
		return err
	}

	listener, err := control.Listen(ctx, o.socket)
	switch inUse, ok := errors.AsType[*control.InUseError](err); {
	case ok && inUse.PID != 0:
		return output.Advise(err, fmt.Sprintf("stop it with: kill %d, or give this one a socket of its own with --socket", inUse.PID))
	case ok:
		return output.Advise(err, "stop it, or give this one a socket of its own with --socket")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return output.Advise(err, "name a place for the socket that this user can write to with --socket PATH, or set XDG_RUNTIME_DIR")
	case err != nil:
		return err
	}

	var served []string
	if !o.usesLibvirt() {
		served = agent.Names()
	}
	for _, text := range ask.Rivals(ctx, o.socket, served) {
		log.Warn(text)
	}
	public, err := o.listenPublic(ctx)
	if err != nil {
		_ = listener.Close()
		return err
	}
	scraped, err := o.listenMetrics(ctx)
	if err != nil {
		_ = listener.Close()
		if public != nil {
			_ = public.Close()
		}
		return err
	}

	now := func() status.Status {
		st := agent.Summary()
		st.Config = userconfig.Status(file, why)
		if rum != nil {
			st.Projects, st.Refused = rum.Status(), rum.NotUsed()
		}
		if discovery != nil {
			st.Setups = discovery.setups()
		}
		return st
	}
	scrape := metrics.Handler(&metrics.Collector{Version: versionOrBuild(), Measure: agent.Measure}, log)
	server := &control.Server{
		Status: now, VMs: agent.VMs, Explain: agent.Explain, Wait: agent.Wait, Connect: agent.Connect,
		AddForward: agent.AddForward, RemoveForward: agent.RemoveForward, Forwards: agent.AddedForwards, Release: agent.Release,
		Events: agent.Events(), Metrics: scrape, Log: log,
	}
	if rum != nil {
		server.VMs = func(q status.Query) iter.Seq[status.VM] { return rum.NoteRivals(agent.VMs(q)) }
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(ctx, listener) })
	if public != nil {
		group.Go(func() error { return server.ServePublic(ctx, public) })
	}
	if scraped != nil {
		log.Info("metrics are served", "address", scraped.Addr().String()) // port 0 becomes one that is free
		group.Go(func() error { return metrics.Serve(ctx, scraped, scrape, log) })
	}
	group.Go(func() error { browser.FollowRules(ctx, agent.Events(), agent.Ask, log); return nil })
	group.Go(func() error { return agent.Run(ctx) })
	group.Go(func() error { userconfig.Follow(ctx, file, why, hup, agent, log); return nil })
	if discovery != nil {
		group.Go(func() error { return discovery.run(ctx, o.libvirt != "") })
	}
	if rum != nil {
		hupToo := make(chan os.Signal, 1)
		signal.Notify(hupToo, syscall.SIGHUP)
		defer signal.Stop(hupToo)
		group.Go(func() error { rum.Run(ctx, hupToo); return nil })
	}
	log.Info("ready", "version", versionOrBuild(), "socket", o.socket, "vms", len(o.vms))
	notify(log, daemon.SdNotifyReady)
	context.AfterFunc(ctx, func() { notify(log, daemon.SdNotifyStopping) })
	err = group.Wait()
	log.Info("stopped")
	return err
}

// listenPublic opens the socket for a group; nil if there is to be none.
func (o *runOptions) listenPublic(ctx context.Context) (net.Listener, error) {
	path, group, named := strings.Cut(o.public, ":")
	switch {
	case o.public == "":
		return nil, nil
	case path == "", named && group == "":
		return nil, output.Misuse(fmt.Errorf("--status-socket %q: want PATH or PATH:GROUP", o.public))
	}
	l, err := control.ListenFor(ctx, path, group)
	if err != nil {
		return nil, output.Advise(err, "name a place that this user can write to and a group that it is in, as in: --status-socket /run/rum-status.sock:kvm")
	}
	return l, nil
}

// agent makes an agent with the VMs of the command line.
func (o *runOptions) agent(rules config.Rules, log *slog.Logger) (*hostagent.Agent, error) {
	if len(o.vms) == 0 && !o.usesLibvirt() {
		return nil, output.Misuse(errors.New("there is no VM to serve; give --vm NAME=ENDPOINT"))
	}
	agent := hostagent.New(hostagent.Config{Version: versionOrBuild(), Rules: rules, ControlSocket: o.socket, Events: events.New(), Log: log})
	for _, s := range o.vms {
		vm, err := parseVM(s)
		if err != nil {
			return nil, output.Misuse(err)
		}
		if err := ownKey(&vm); err != nil {
			return nil, err
		}
		if err := agent.AddVM(vm); err != nil {
			return nil, output.Misuse(err)
		}
	}
	return agent, nil
}

// notify tells systemd, if that is what started the program.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "error", err)
	}
}

// shareProcessors leaves half of the processors, of those that the cgroup allows, to the
// programs that a relay is between: goroutines that hand work to one another lose more by
// waking another processor than they gain. The relay's loops have places of their own.
// GOMAXPROCS in the environment is left alone.
func shareProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2) + relay.Loops())
	}
}
