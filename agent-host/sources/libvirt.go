package sources

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/agent-host/userconfig"
)

// Libvirt keeps the agent's VMs those that run under libvirt.
type Libvirt struct {
	agent    *hostagent.Agent
	projects *userconfig.Projects // nil for none
	hostOnly string
	store    keys.Store
	log      *slog.Logger

	mu      sync.Mutex
	all     []*hostagent.Discovery
	keepers []*hostagent.Keeper // of those that have one
}

// AtLibvirt returns what finds VMs at the libvirt daemon of a URI, and at those of projects, which are nil for none. hostOnly
// is the network whose leases are bridge addresses.
func AtLibvirt(agent *hostagent.Agent, uri string, rum *userconfig.Projects, hostOnly string, log *slog.Logger) (*Libvirt, error) {
	store, err := keys.Default()
	if err != nil {
		return nil, err
	}
	d := &Libvirt{agent: agent, projects: rum, hostOnly: hostOnly, store: store, log: log}
	d.add(uri)
	return d, nil
}

// add returns the discovery at a daemon, if there is none at it yet; else nil.
func (d *Libvirt) add(uri string) *hostagent.Discovery {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.ContainsFunc(d.all, func(o *hostagent.Discovery) bool { return libvirt.SameDaemon(o.Source, uri) }) {
		return nil
	}
	log := d.log.With("libvirt", uri)
	watcher := &libvirt.Watcher{URI: uri, HostOnly: d.hostOnly, Log: log}
	one := &hostagent.Discovery{Agent: d.agent, Source: uri, Watch: watcher.Run, Key: d.store.ForDomain, Log: log}
	if k := keeper(uri, log); k != nil {
		d.keepers = append(d.keepers, k)
		one.Watch = func(ctx context.Context, seen func(libvirt.Snapshot)) error {
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return k.Run(ctx) })
			group.Go(func() error {
				return watcher.Run(ctx, func(s libvirt.Snapshot) { seen(s); k.Seen(s) })
			})
			return group.Wait()
		}
	}
	if d.projects != nil {
		one.Project = d.projects.At(uri)
	}
	d.all = append(d.all, one)
	return one
}

// Run discovers until ctx ends. A daemon that a project names is asked from then on; only says that there is but one.
func (d *Libvirt) Run(ctx context.Context, only bool) error {
	group, ctx := errgroup.WithContext(ctx)
	first := d.all[0]
	group.Go(func() error { return first.Run(ctx) })
	if d.projects != nil {
		refresh := func() {
			if ctx.Err() != nil {
				return
			}
			if !only {
				for _, uri := range d.projects.URIs() {
					if one := d.add(uri); one != nil {
						group.Go(func() error { return one.Run(ctx) })
					}
				}
			}
			d.mu.Lock()
			all := slices.Clone(d.all)
			d.mu.Unlock()
			for _, one := range all {
				one.Refresh()
			}
		}
		d.projects.OnChange(refresh)
		refresh()
	}
	group.Go(func() error { <-ctx.Done(); return nil }) // what is added later has a group to be added to
	return group.Wait()
}

// Setups tells about the domains that setup was run on and that were defined anew.
func (d *Libvirt) Setups() []status.Setup {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []status.Setup
	for _, k := range d.keepers {
		all = append(all, k.Status()...)
	}
	return all
}
