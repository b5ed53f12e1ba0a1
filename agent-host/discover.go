package hostagent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// Discovery makes an agent serve the domains of a libvirt daemon, each for as long as it runs.
type Discovery struct {
	Agent *Agent
	// Source is where the domains come from, as status shows it.
	Source string
	// Watch reports the domains until its context ends, as the Run method of [libvirt.Watcher] does.
	Watch func(ctx context.Context, seen func(libvirt.Snapshot)) error
	// Project returns the project that a domain is of; nil for none, as is the function
	// where there are no projects. It is asked again for every domain after [Discovery.Refresh].
	Project func(libvirt.Domain) *Project
	// Key returns the key of a guest by name and identity, which is [keys.ProjectIdentity] for a domain of a project and the
	// UUID for all others; nil for none.
	Key func(name, identity string) ([]byte, error)
	// Bind is told who has proved a key; nil where nobody needs to know.
	Bind func(name, identity string) error
	// Remote is the host that has the domains; nil for this one. Their names begin with its own and a slash.
	Remote Remote
	Log    *slog.Logger

	mu     sync.Mutex
	last   []libvirt.Domain
	failed bool                 // the source could not be asked
	served map[string]served    // by UUID, as last told to the agent
	uuids  map[string]string    // of the domains of projects, by identity
	anew   map[string]time.Time // when they became another, by identity
}

// Remote is another host that has domains, by way of a relay there.
type Remote interface {
	// Name is what the host is called.
	Name() string
	// Endpoint is that of a domain's guest agent.
	Endpoint(libvirt.Domain) (endpoint.Endpoint, error)
	// DialBridge connects to a TCP port at a domain's bridge address, which only that host knows.
	DialBridge(ctx context.Context, d libvirt.Domain, port uint16) (relay.Conn, error)
}

// served is a domain that the agent serves.
type served struct {
	libvirt.Domain
	identity string
}

// Run discovers until ctx ends, and returns nil then. The VMs stay with the agent.
func (d *Discovery) Run(ctx context.Context) error {
	now := status.Discovery{Source: d.Source}
	if d.Remote != nil {
		now.Host, now.State = d.Remote.Name(), status.Connecting
		d.Agent.setDiscovery(now)
	}
	return d.Watch(ctx, func(s libvirt.Snapshot) {
		why := ""
		if s.Err != nil {
			why = withHint(s.Err)
		}
		d.Agent.setDiscovery(now.Answered(why))
		d.mu.Lock()
		defer d.mu.Unlock()
		again := d.failed && s.Err == nil
		if d.failed = s.Err != nil; d.failed {
			return
		}
		d.last = s.Domains
		d.sync(s.Domains)
		if again && d.Remote != nil { // by which they could not be reached either
			for _, was := range d.served {
				d.Agent.knock(was.Name)
			}
		}
	})
}

// Refresh has projects counted that have come, gone or changed.
func (d *Discovery) Refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sync(d.last)
}

// sync makes what the agent serves that which runs. What ended goes first: its name and addresses may be another's now.
// It needs d.mu.
func (d *Discovery) sync(domains []libvirt.Domain) {
	if d.served == nil {
		d.served, d.uuids, d.anew = make(map[string]served), make(map[string]string), make(map[string]time.Time)
	}
	running := make(map[string]served)
	own := make(map[string]*Project) // by UUID
	ids := make([]string, 0, len(domains))
	var off []string
	for _, dom := range domains {
		id := d.identity(dom)
		if p := d.project(dom); p != nil {
			own[dom.UUID], id = p, keys.ProjectIdentity(p.ID)
			d.noticeRedefinition(dom, id)
		}
		ids = append(ids, id)
		if dom.State == libvirt.Off {
			off = append(off, dom.Name)
		} else {
			running[dom.UUID] = served{dom, id}
		}
	}
	for uuid, was := range maps.Clone(d.served) {
		now, ok := running[uuid]
		if !ok || now.Name != was.Name || now.Endpoint != was.Endpoint || now.Problem != was.Problem || now.identity != was.identity {
			d.Agent.RemoveVM(was.Name)
			delete(d.served, uuid)
		}
	}
	d.Agent.setKnown(d.Source, ids)
	d.Agent.setOff(d.Source, off)
	for _, dom := range domains {
		if dom.State == libvirt.Off {
			continue
		}
		was, ok := d.served[dom.UUID]
		switch {
		case !ok:
			ok = d.add(dom, running[dom.UUID].identity, own[dom.UUID])
		case was.Boots != dom.Boots:
			d.Agent.relink(dom.Name)
		}
		if !ok {
			continue
		}
		d.Agent.SetProject(dom.Name, own[dom.UUID])
		if was.BridgeIP != dom.BridgeIP {
			d.Agent.SetBridge(dom.Name, dom.BridgeIP)
		}
		d.served[dom.UUID] = running[dom.UUID]
	}
}

// identity is what tells a domain from all others: of another host's its UUID is what that host says.
func (d *Discovery) identity(dom libvirt.Domain) string {
	if d.Remote != nil {
		return keys.RemoteIdentity(d.Remote.Name(), dom.UUID)
	}
	return dom.UUID
}

func (d *Discovery) project(dom libvirt.Domain) *Project {
	if d.Project == nil {
		return nil
	}
	return d.Project(dom)
}

// noticeRedefinition compares the domain of a project with that which it had.
func (d *Discovery) noticeRedefinition(dom libvirt.Domain, identity string) {
	was := d.uuids[identity]
	d.uuids[identity] = dom.UUID
	if was != "" && was != dom.UUID {
		d.anew[identity] = time.Now()
		d.Log.Info("the domain was defined anew; key, address and rules are its project's", "vm", dom.Name, "was", was, "uuid", dom.UUID)
	}
}

// add reports whether the agent serves the domain from now on.
func (d *Discovery) add(dom libvirt.Domain, identity string, own *Project) bool {
	vm := VM{Name: dom.Name, ID: identity, Project: own, Bridge: dom.BridgeIP, Problem: dom.Problem, Redefined: d.anew[identity]}
	var err error
	switch {
	case dom.Endpoint == "":
	case d.Remote != nil:
		vm.Endpoint, err = d.Remote.Endpoint(dom)
	default:
		vm.Endpoint, err = endpoint.Parse(dom.Endpoint)
	}
	if d.Remote != nil {
		vm.Host = d.Remote.Name()
		vm.DialBridge = func(ctx context.Context, port uint16) (relay.Conn, error) { return d.Remote.DialBridge(ctx, dom, port) }
	}
	if d.Key != nil {
		vm.KeyOf = func() ([]byte, error) { return d.Key(dom.Name, identity) }
	}
	if d.Bind != nil {
		vm.Proved = func() {
			if err := d.Bind(dom.Name, identity); err != nil {
				d.Log.Warn("the key is not bound to the VM that has proved it", "vm", dom.Name, "error", err)
			}
		}
	}
	if err != nil {
		vm.Endpoint, vm.Problem = endpoint.Endpoint{}, err.Error()
	}
	switch err := d.Agent.AddVM(vm); {
	case errors.Is(err, ErrNameTaken):
		d.Log.Debug("a domain is not served: its name is that of another VM", "vm", dom.Name, "uuid", dom.UUID)
		return false
	case err != nil:
		d.Log.Warn("a domain is not served", "vm", dom.Name, "error", err)
		return false
	}
	d.Log.Info("domain found", "vm", dom.Name, "endpoint", cmp.Or(dom.Endpoint, "none"), "bridge", dom.BridgeIP)
	return true
}

// setDiscovery notes for the status what is known of a source of VMs.
func (a *Agent) setDiscovery(now status.Discovery) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.discovery.Note(now)
}

// relink ends the link to a VM that is known to have rebooted, so that the next attempt need not wait for the link to be
// found dead.
func (a *Agent) relink(name string) {
	a.mu.Lock()
	v := a.find(name)
	a.mu.Unlock()
	if v == nil {
		return
	}
	v.mu.Lock()
	link := v.link
	v.mu.Unlock()
	if link != nil {
		link.Close()
	}
}
