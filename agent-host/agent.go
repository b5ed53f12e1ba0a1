package hostagent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rum-vm/rum-agent/agent-host/added"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/fdstore"
	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// ErrNameTaken is the error of adding a second VM under one name.
var ErrNameTaken = errors.New("there is a VM of that name already")

// VM is what the agent needs to know of a virtual machine.
type VM struct {
	// Name is unique and for people, and Host that of another host which has the VM; empty for this one.
	Name, Host string
	// ID is what the VM's own loopback address comes from, as its UUID or its
	// project's id; empty for its name.
	ID string
	// Project is what the VM follows; nil for the rules of all VMs.
	Project *Project
	// Endpoint is how the guest agent is reached; the zero Endpoint for a VM
	// that has none, and Problem then says why.
	Endpoint endpoint.Endpoint
	Problem  string
	// Bridge is where the host reaches the VM without its agent; the zero
	// Addr for nowhere.
	Bridge netip.Addr
	// DialBridge connects to that address, where another host does; nil where this one does.
	DialBridge serve.DialBridge
	// Key is the secret shared with the guest agent; nil for none.
	Key []byte
	// Redefined is when the VM was seen to be another libvirt domain of the same
	// project; the zero time if it never was.
	Redefined time.Time
	// KeyOf, if there is one, is asked for the key before each attempt, in the place of Key: a key that is made,
	// changed or forgotten counts from the next attempt on.
	KeyOf func() ([]byte, error)
	// Proved is called when the VM has proved its key; nil for nobody.
	Proved func()
}

// Config is what an [Agent] needs.
type Config struct {
	// Version is told to guests and in the status.
	Version string
	// Rules are those to begin with; nil is the implied one alone.
	Rules config.Rules
	// ControlSocket is the path to which the control socket is bound, which no guest is
	// given; empty for none.
	ControlSocket string
	// OpenURL is given each URL that a VM wants opened and whose of its users does, and calls answer once; nil where none is. It takes a moment.
	OpenURL func(vm string, user uint32, url string, answer func(wire.OpenOutcome, string))
	// Kept is where listeners are kept while this process is replaced; nil for nowhere.
	Kept *fdstore.Store
	// Events are told what happens; nil for a history of the agent's own.
	Events *events.History
	Log    *slog.Logger
}

// Agent serves a changing set of VMs.
type Agent struct {
	cfg     Config
	table   *forward.Table
	started time.Time

	mu      sync.Mutex
	vms     []*vm               // in the order they were added
	known   map[string][]string // ids of VMs that may be added, by where they are known from
	off     map[string][]string // names of those that do not run
	ctx     context.Context     // of Run; nil before
	group   *errgroup.Group
	knocks  *endpoint.Knocks // nil while nobody hears them
	stopped bool

	discovery status.Sources

	ownMu sync.Mutex
	own   []netip.AddrPort // listeners of this agent that are no forwards

	rulesMu sync.Mutex // taken after mu
	rules   ruleSet
	adds    added.Set // changed with rulesMu only

	upgrading sync.Map // has the names of VMs whose agent is being replaced
}

// New returns an agent with no VMs.
func New(cfg Config) *Agent {
	if cfg.Events == nil {
		cfg.Events = events.New()
	}
	rules := ruleSet{all: cfg.Rules}
	a := &Agent{cfg: cfg, rules: rules, started: time.Now()}
	a.table = forward.New(forward.Config{
		Rules: decider(rules), Static: statics(rules), Sockets: sockets(rules), Names: names(rules), Reverse: reverses(rules),
		ControlSocket: cfg.ControlSocket, Holder: a.holder, Kept: cfg.Kept, Events: cfg.Events, Log: cfg.Log,
	})
	return a
}

// Run serves the VMs until ctx ends, and returns nil then: with every listener
// closed, every connection reset and every goroutine gone. It may be called
// once.
func (a *Agent) Run(ctx context.Context) error {
	defer a.table.Close()
	asked := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	group := new(errgroup.Group)
	group.Go(func() error {
		<-asked.Done()
		a.mu.Lock() // after which nothing is added to the group
		a.stopped = true
		a.mu.Unlock()
		// Before links end: who connects from now on waits for the next process, if listeners are kept.
		a.table.Leave()
		cancel()
		return nil
	})
	a.mu.Lock()
	a.ctx, a.group = ctx, group
	for _, v := range a.vms {
		a.start(v)
	}
	a.mu.Unlock()
	return group.Wait()
}

// start needs a.mu, and Run to be running.
func (a *Agent) start(v *vm) {
	ctx, cancel := context.WithCancel(a.ctx)
	v.cancel = cancel
	v.unheard()
	a.group.Go(func() error { defer cancel(); v.supervise(ctx); return nil })
}

// AddVM begins to serve a VM, at once or when Run is called. The error wraps
// ErrNameTaken.
func (a *Agent) AddVM(c VM) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.find(c.Name) != nil {
		return fmt.Errorf("add VM %q: %w", c.Name, ErrNameTaken)
	}
	a.SetProject(c.Name, c.Project) // before anything of it can be forwarded
	v := newVM(a, c)
	a.vms = append(a.vms, v)
	a.giveLoopbacks()
	if a.ctx != nil && !a.stopped {
		a.start(v)
	}
	return nil
}

// RemoveVM ends the service of a VM: its link and its host listeners are
// closed. A connection over the bridge goes on. Removing what is not there does
// nothing.
func (a *Agent) RemoveVM(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.find(name)
	if v == nil {
		return
	}
	a.vms = slices.DeleteFunc(a.vms, func(o *vm) bool { return o == v })
	v.forwards.Close()
	v.cancel()
	a.SetProject(name, nil)
	a.giveLoopbacks()
}

// SetBridge says where the host reaches a VM without its agent; the zero Addr
// for nowhere. For a VM that is not there it does nothing.
func (a *Agent) SetBridge(name string, ip netip.Addr) {
	a.mu.Lock()
	v := a.find(name)
	a.mu.Unlock()
	if v != nil {
		v.forwards.SetBridge(ip, v.DialBridge)
	}
}

// find needs a.mu.
func (a *Agent) find(name string) *vm {
	i := slices.IndexFunc(a.vms, func(v *vm) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return a.vms[i]
}

// Events are what happened; see [Config].
func (a *Agent) Events() *events.History { return a.cfg.Events }

// Names returns the names of the VMs there are now.
func (a *Agent) Names() []string {
	var names []string
	for _, v := range a.snapshot() {
		names = append(names, v.Name)
	}
	return names
}

// snapshot returns the VMs there are now.
func (a *Agent) snapshot() []*vm {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.vms)
}

// Status tells everything the agent knows. It does not wait for any guest.
func (a *Agent) Status() status.Status {
	st := a.Summary()
	st.VMs = slices.AppendSeq([]status.VM{}, a.VMs(status.Query{}))
	return st
}

// Summary is a Status without the VMs.
func (a *Agent) Summary() status.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return status.Status{
		Version: a.cfg.Version, PID: os.Getpid(), UptimeSeconds: time.Since(a.started).Seconds(),
		Discovery: slices.Clone(a.discovery),
		Warning:   a.table.Shortage(),
	}
}

// VMs tells what is asked of the VMs, each as it is when its turn comes. Their guests are asked for a sign of life, so
// that who looks again learns soon of one that stands still.
func (a *Agent) VMs(q status.Query) iter.Seq[status.VM] {
	return func(yield func(status.VM) bool) {
		vms := a.snapshot()
		if q.VM != "" {
			vms = slices.DeleteFunc(vms, func(v *vm) bool { return v.Name != q.VM })
		}
		var some []forward.Summary
		if q.Rows > 0 && !q.Some() {
			of := make([]*forward.VM, len(vms))
			for i, v := range vms {
				of[i] = v.forwards
			}
			some = a.table.Summaries(of, q.Rows)
		}
		for i, v := range vms {
			var s forward.Summary
			if some != nil {
				s = some[i]
			} else {
				s.Shown, s.More = v.forwards.Summary(0)
				s.Shown = q.Of(s.Shown)
			}
			st := v.status(s)
			if p := a.Project(v.Name); p != nil {
				c := p.Status()
				st.Config = &c
			}
			if !yield(st) {
				return
			}
		}
	}
}
