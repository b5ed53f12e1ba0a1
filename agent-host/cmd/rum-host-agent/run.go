package main

import (
	"cmp"
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
	"github.com/rum-vm/rum-agent/agent-host/fdstore"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/metrics"
	"github.com/rum-vm/rum-agent/agent-host/openurl"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/page"
	"github.com/rum-vm/rum-agent/agent-host/remote/address"
	"github.com/rum-vm/rum-agent/agent-host/sources"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/agent-host/systemd"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
	"github.com/rum-vm/rum-agent/agent-host/vmflag"
	"github.com/rum-vm/rum-agent/tunnel/peerlog"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// runOptions are the flags of run.
type runOptions struct {
	*shared
	vms     []string
	hosts   []string
	libvirt string
	config  string
	level   string
	public  string
	metrics string
	http    string
}

func newRun(s *shared) *cobra.Command {
	o := runOptions{shared: s}
	c := &cobra.Command{
		Use:   "run [--vm NAME=ENDPOINT]... [--host ssh://[USER@]HOST]...",
		Short: "Serve VMs until stopped",
		Long: `Serve VMs until stopped: those that run under libvirt, or those given with --vm and
those under libvirt on other hosts, to which --host and [[hosts]] of --config lead.

An endpoint is how the agent in the VM is reached: vsock:CID[:PORT],
hybrid:PATH[:PORT], unix:PATH, serial:PATH or exec:COMMAND. After it may come
,bridge=IP, where the host reaches the VM without its agent, and ,key=FILE, the
key that both agents prove; without it, the key that cloudinit or install made
for that name, if there is one.

What is forwarded where is decided by the rules of rum.toml: that of --config for
all VMs, or without it that of the project that rum made the VM for, if this user
has one of that name. A file is read again when it changes, and on SIGHUP; one
with a mistake changes nothing.`,
		Example: "  rum-host-agent run\n  rum-host-agent run --vm dev=vsock:3,bridge=192.168.50.101\n  rum-host-agent run --host ssh://me@server",
		Args:    atMost(0),
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), c.ErrOrStderr()) },
	}
	// Not a StringSlice: an endpoint may contain commas.
	c.Flags().StringArrayVar(&o.vms, "vm", nil, "a VM to serve, as `NAME=ENDPOINT[,bridge=IP][,key=FILE]`; may be repeated")
	c.Flags().StringArrayVar(&o.hosts, "host", nil, "another host whose VMs to serve, as `ssh://[USER@]HOST[:PORT]`; it has to have\nrum-host-agent, and ssh to log in without a question; may be repeated")
	c.Flags().StringVar(&o.libvirt, "libvirt", "", "libvirt `URI` to find VMs at, or none; without --vm and --host the default is\n$LIBVIRT_DEFAULT_URI, else the system's or the user's daemon")
	configFlag(c, &o.config)
	c.Flags().StringVar(&o.public, "status-socket", "", "a second socket, `PATH[:GROUP]`, where the group may see status and events, without\ndirectories, and change nothing")
	c.Flags().StringVar(&o.metrics, "metrics", "", "answer Prometheus at `[HOST]:PORT`, under /metrics; on loopback unless a host is written")
	c.Flags().StringVar(&o.http, "http", page.DefaultAddress, "serve the page, and names of ports such as 3000.dev.localhost, at `[HOST]:PORT`\nof loopback, or none")
	c.Flags().StringVar(&o.level, "log-level", "info", "log from this `LEVEL` on: debug, info, warn or error")
	return c
}

const (
	// memoryLimit is from where on memory is collected more eagerly, in bytes. What guests
	// may have wait here is less; without it the heap would be twice that.
	memoryLimit = 80 << 20
	// heapFloor is what the collector takes to be in use beside what is, in bytes, so that it lets as much more
	// garbage lie until it comes again. What is in use is a few MiB mostly, and requests by name leave so much
	// garbage that it would be at work all the time.
	heapFloor = 16 << 20
)

// logGrace is how long the last lines of the log may take.
const logGrace = time.Second

func (o *runOptions) run(ctx context.Context, stderr io.Writer) error {
	useProcessors(max(1, runtime.GOMAXPROCS(0)/2) + relay.Loops())
	defer runtime.KeepAlive(shapeHeap())
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return output.Misuse(fmt.Errorf("--log-level %q: want debug, info, warn or error", o.level))
	}
	log, out := peerlog.Open(stderr, level, "vm")
	defer out.Close(logGrace)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	why := userconfig.Which(o.config)
	file, err := userconfig.Open(o.config, userconfig.Remembered(log))
	if err != nil {
		return err
	}
	opener := openurl.New(openurl.Config{Ready: browser.Display, Open: browser.Start, Notify: browser.Notify, Log: log})
	socket, stored := systemd.Passed()
	var listener net.Listener
	if socket != nil {
		if listener, err = control.Adopt(socket); err != nil {
			return err
		}
		o.socket = listener.Addr().String() // as its unit has it
	}
	var kept *fdstore.Store
	if systemd.Notified() {
		kept = fdstore.New(systemd.Notify, stored, fdstore.Wait, log)
		defer kept.Close()
	}
	hosts, err := sources.Hosts(o.hosts, o.libvirt, file.Current().Hosts, versionOrBuild(), log)
	if err != nil {
		return err
	}
	agent, err := o.agent(file.Current().Rules, len(hosts), opener, kept, log)
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
	remotes, err := sources.AtHosts(agent, hosts, log)
	if err != nil {
		return err
	}

	addresses, err := o.pageAddresses()
	if err != nil {
		return err
	}
	if listener == nil {
		listener, err = control.Listen(ctx, o.socket)
	}
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

	reloader := userconfig.Reloader{Began: func() func() { return reloading(log) }}
	var web *page.Page // nil for none
	now := func() status.Status {
		st := agent.Summary()
		st.Config = userconfig.Status(file, why)
		if rum != nil {
			st.Projects, st.Refused = rum.Status(), rum.NotUsed()
		}
		if discovery != nil {
			st.Setups = discovery.Setups()
		}
		if web != nil {
			st.Page = web.Status()
		}
		for _, r := range opener.Requests() {
			r.URL = "" // which is for who answers
			st.Requests = append(st.Requests, r)
		}
		return st
	}
	scrape := metrics.Handler(&metrics.Collector{Version: versionOrBuild(), Measure: agent.Measure}, log)
	server := &control.Server{
		Status: now, VMs: agent.VMs, Explain: agent.Explain, Wait: agent.Wait, Connect: func(ctx context.Context, vm string, port uint16, as control.Connection) (net.Conn, error) {
			return agent.Connect(ctx, vm, port, hostagent.Connection(as))
		},
		GuestLog: agent.GuestLog,
		Upgrade: func(ctx context.Context, vm string, u control.Upgrade, binary io.Reader) error {
			return agent.UpgradeGuest(ctx, vm, wire.UpgradeRequest(u), binary)
		},

		AddForward: agent.AddForward, RemoveForward: agent.RemoveForward, Forwards: opener.Explained, Release: agent.Release,
		Requests: opener.Requests, Answer: opener.Answer,
		Reload: reloader.Reload, Events: agent.Events(), Metrics: scrape, Log: log,
	}
	if rum != nil {
		server.VMs = func(q status.Query) iter.Seq[status.VM] { return rum.NoteRivals(agent.VMs(q)) }
	}
	if addresses != nil {
		web = page.New(page.Config{
			Addresses: addresses, Listen: agent.Listen, API: server.Handler(),
			Names: agent.Names, VMs: server.VMs, Carried: agent.Carried, Log: log,
		})
		all := server.VMs
		server.VMs = func(q status.Query) iter.Seq[status.VM] { return web.Named(all(q)) }
		server.Link = web.Link
	}
	opener.VMs, opener.Events = server.VMs, agent.Events()
	opener.AddForward, opener.RemoveForward, opener.Forwards = agent.AddForward, agent.RemoveForward, agent.AddedForwards
	opener.Setting = func(vm string) string {
		if p := agent.Project(vm); p != nil {
			return p.Config.OpenURLs(vm)
		}
		return file.Current().OpenURLs(vm)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return opener.Run(ctx) })
	ofFile := reloader.Asked()
	group.Go(func() error { userconfig.Follow(ctx, file, why, ofFile, agent, log); return nil })
	if rum != nil {
		ofProjects := reloader.Asked()
		group.Go(func() error { rum.Run(ctx, ofProjects); return nil })
	}
	group.Go(func() error { reloader.On(ctx, hup); return nil })
	group.Go(func() error { return server.Serve(ctx, listener) })
	if web != nil {
		group.Go(func() error { return web.Run(ctx) })
	}
	if public != nil {
		group.Go(func() error { return server.ServePublic(ctx, public) })
	}
	if scraped != nil {
		log.Info("metrics are served", "address", scraped.Addr().String()) // port 0 becomes one that is free
		group.Go(func() error { return metrics.Serve(ctx, scraped, scrape, log) })
	}
	group.Go(func() error { browser.FollowRules(ctx, agent.Events(), agent.Ask, log); return nil })
	group.Go(func() error { return agent.Run(ctx) })
	if discovery != nil {
		group.Go(func() error { return discovery.Run(ctx, o.libvirt != "") })
	}
	group.Go(func() error {
		return systemd.Watchdog(ctx, func() {
			_ = now()
			for range server.VMs(status.Query{Rows: 1}) {
			}
			relay.Turn()
		})
	})
	for _, d := range remotes {
		group.Go(func() error { return d.Run(ctx) })
	}
	log.Info("ready", "version", versionOrBuild(), "socket", o.socket, "vms", len(o.vms))
	notify(log, daemon.SdNotifyReady)
	context.AfterFunc(ctx, func() { notify(log, daemon.SdNotifyStopping) })
	err = group.Wait()
	log.Info("stopped")
	return err
}

// usesLibvirt says whether run looks for VMs: unless it was told which, or told not to.
func (o *runOptions) usesLibvirt() bool {
	if o.libvirt == "" && len(o.vms)+len(o.hosts) > 0 {
		return false
	}
	if _, remote, _ := address.ParseLibvirt(o.libvirt); remote {
		return false
	}
	return cmp.Or(o.libvirt, libvirt.DefaultURI()) != libvirt.None
}

// discovery returns what finds VMs under libvirt; nil without libvirt.
func (o *runOptions) discovery(agent *hostagent.Agent, rum *userconfig.Projects, hostOnly string, log *slog.Logger) (*sources.Libvirt, error) {
	if !o.usesLibvirt() {
		return nil, nil
	}
	uri := cmp.Or(o.libvirt, libvirt.DefaultURI())
	if err := libvirt.CheckURI(uri); err != nil {
		return nil, &output.Problem{Err: err, Hint: cmp.Or(libvirt.Hint(err), "see rum-host-agent run --help"), Usage: true}
	}
	return sources.AtLibvirt(agent, uri, rum, hostOnly, log)
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
func (o *runOptions) agent(rules config.Rules, hosts int, opener *openurl.Opener, kept *fdstore.Store, log *slog.Logger) (*hostagent.Agent, error) {
	if len(o.vms) == 0 && hosts == 0 && !o.usesLibvirt() {
		return nil, output.Misuse(errors.New("there is no VM to serve; give --vm NAME=ENDPOINT"))
	}
	agent := hostagent.New(hostagent.Config{Version: versionOrBuild(), Rules: rules, ControlSocket: o.socket, OpenURL: opener.Ask, Kept: kept, Events: events.New(), Log: log})
	for _, s := range o.vms {
		vm, err := vmflag.Parse(s)
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
	if err := systemd.Notify(state); err != nil {
		log.Warn("cannot notify systemd", "error", err)
	}
}

// reloading tells systemd that files are read anew, and returns what tells that they have been.
func reloading(log *slog.Logger) func() {
	if err := systemd.Reloading(); err != nil {
		log.Warn("cannot notify systemd", "error", err)
	}
	return func() { notify(log, daemon.SdNotifyReady) }
}

// shapeHeap sets how much memory is used before it is collected. What it returns is to be kept: it counts, and is
// never touched, so that the kernel has no memory for it. GOMEMLIMIT in the environment is left alone.
func shapeHeap() (ballast []byte) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	debug.SetMemoryLimit(memoryLimit + heapFloor)
	return make([]byte, heapFloor)
}

// useProcessors runs goroutines on so many processors. Half of those that the cgroup allows is best where others are for the programs that a
// relay is between: goroutines that hand work to one another lose more by waking another processor than they gain. The relay's loops
// have places of their own. GOMAXPROCS in the environment is left alone.
func useProcessors(n int) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(n)
	}
}
