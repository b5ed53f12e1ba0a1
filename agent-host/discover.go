package hostagent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/tunnel"
)

// Discovery makes an agent serve the domains of a libvirt daemon, each for as long as it runs.
type Discovery struct {
	Agent *Agent
	// Source is where the domains come from, as status shows it.
	Source string
	// Watch reports the domains until its context ends, as the Run method of [libvirt.Watcher] does.
	Watch func(ctx context.Context, seen func(libvirt.Snapshot)) error
	// Key returns the key of a guest by name and UUID; nil for none.
	Key func(name, uuid string) ([]byte, error)
	Log *slog.Logger

	served map[string]libvirt.Domain // by UUID, as last told to the agent
}

// Run discovers until ctx ends, and returns nil then. The VMs stay with the agent.
func (d *Discovery) Run(ctx context.Context) error {
	d.served = make(map[string]libvirt.Domain)
	return d.Watch(ctx, func(s libvirt.Snapshot) {
		d.Agent.setDiscovery(d.Source, s.Err)
		if s.Err == nil {
			d.sync(s.Domains)
		}
	})
}

// sync makes what the agent serves that which runs. What ended goes first: its name and addresses may be another's now.
func (d *Discovery) sync(domains []libvirt.Domain) {
	running := make(map[string]libvirt.Domain)
	ids := make([]string, 0, len(domains))
	for _, dom := range domains {
		ids = append(ids, dom.UUID)
		if dom.State != libvirt.Off {
			running[dom.UUID] = dom
		}
	}
	for uuid, was := range maps.Clone(d.served) {
		if now, ok := running[uuid]; !ok || now.Name != was.Name || now.Endpoint != was.Endpoint || now.Problem != was.Problem {
			d.Agent.RemoveVM(was.Name)
			delete(d.served, uuid)
		}
	}
	d.Agent.setKnown(ids)
	for _, dom := range domains {
		if dom.State == libvirt.Off {
			continue
		}
		was, ok := d.served[dom.UUID]
		switch {
		case !ok:
			ok = d.add(dom)
		case was.Boots != dom.Boots:
			d.Agent.relink(dom.Name)
		}
		if !ok {
			continue
		}
		if was.BridgeIP != dom.BridgeIP {
			d.Agent.SetBridge(dom.Name, dom.BridgeIP)
		}
		d.served[dom.UUID] = dom
	}
}

// add reports whether the agent serves the domain from now on.
func (d *Discovery) add(dom libvirt.Domain) bool {
	vm := VM{Name: dom.Name, ID: dom.UUID, Bridge: dom.BridgeIP, Problem: dom.Problem}
	var err error
	if dom.Endpoint != "" {
		vm.Endpoint, err = tunnel.ParseEndpoint(dom.Endpoint)
	}
	if d.Key != nil {
		vm.KeyOf = func() ([]byte, error) { return d.Key(dom.Name, dom.UUID) }
	}
	if err != nil {
		vm.Endpoint, vm.Problem = tunnel.Endpoint{}, err.Error()
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

// setDiscovery notes for the status whether a source of VMs answers.
func (a *Agent) setDiscovery(source string, err error) {
	now := control.Discovery{Source: source}
	if err != nil {
		now.Error = err.Error()
		if hint := libvirt.Hint(err); hint != "" {
			now.Error += "; " + hint
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.discovery, func(d control.Discovery) bool { return d.Source == source })
	if i < 0 {
		a.discovery = append(a.discovery, now)
		return
	}
	a.discovery[i] = now
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
