package main

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"sync"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/projects"
)

// ofProject is why a file counts.
const ofProject = "of its project"

// rumProjects ties the projects of this user's rum to VMs.
type rumProjects struct {
	watcher *projects.Watcher
	agent   *hostagent.Agent
	named   []string // VMs of the command line, which are tied by their names
	log     *slog.Logger

	mu     sync.Mutex
	all    []*projects.Project
	told   map[*config.File]logged // as last logged
	change []func()
}

// logged is what a file was when it was logged last.
type logged struct {
	config *config.Config
	err    error
}

// newProjects looks for projects. The VMs of the command line follow theirs from now on.
func newProjects(agent *hostagent.Agent, named []string, remember string, log *slog.Logger) *rumProjects {
	r := &rumProjects{
		watcher: &projects.Watcher{Dir: projects.Dir(), Remember: remember, Log: log},
		agent:   agent, named: named, log: log, told: make(map[*config.File]logged),
	}
	all, _ := r.watcher.Scan()
	r.update(all)
	return r
}

// run follows the projects until ctx ends.
func (r *rumProjects) run(ctx context.Context, hup <-chan os.Signal) {
	r.watcher.Run(ctx, hup, r.update)
}

// onChange has a function called after each change from now on.
func (r *rumProjects) onChange(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.change = append(r.change, f)
}

func (r *rumProjects) update(all []*projects.Project) {
	r.mu.Lock()
	r.all = all
	for _, p := range all {
		now := logged{p.File.Current(), p.File.Err()}
		if r.told[p.File] == now {
			continue
		}
		r.told[p.File] = now
		logConfigError(r.log, p.File, now.err)
		logConfig(r.log.With("vm", p.Domain), p.File, now.config, ofProject)
	}
	change := slices.Clone(r.change)
	r.mu.Unlock()
	for _, name := range r.named {
		r.agent.SetProject(name, r.of(name, ""))
	}
	for _, f := range change {
		f()
	}
}

// of returns what a VM of that name and disk follows; nil for no project.
func (r *rumProjects) of(name, disk string) *hostagent.Project {
	r.mu.Lock()
	defer r.mu.Unlock()
	return forAgent(projects.Of(r.all, name, disk))
}

// at returns what tells which project a domain at a libvirt daemon follows.
func (r *rumProjects) at(uri string) func(libvirt.Domain) *hostagent.Project {
	return func(dom libvirt.Domain) *hostagent.Project {
		r.mu.Lock()
		defer r.mu.Unlock()
		here := slices.DeleteFunc(slices.Clone(r.all), func(p *projects.Project) bool { return !sameDaemon(p.URI(), uri) })
		return forAgent(projects.Of(here, dom.Name, dom.Disk))
	}
}

// uris are the libvirt daemons that projects have their domains at.
func (r *rumProjects) uris() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, p := range r.all {
		if uri := p.URI(); !slices.Contains(all, uri) {
			all = append(all, uri)
		}
	}
	return all
}

// sameDaemon compares libvirt URIs. A project names one of two daemons; where the socket of that is, is for the user to say.
func sameDaemon(a, b string) bool { return isSession(a) == isSession(b) }

func isSession(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && u.Path == "/session"
}

func forAgent(p *projects.Project) *hostagent.Project {
	if p == nil {
		return nil
	}
	return &hostagent.Project{ID: p.ID, Config: p.File.Current(), Status: func() control.Config { return projectStatus(p) }}
}

func projectStatus(p *projects.Project) control.Config {
	st := configStatus(p.File, ofProject)
	st.VM = p.Domain
	return st
}

// status tells about every project.
func (r *rumProjects) status() []control.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []control.Config
	for _, p := range r.all {
		all = append(all, projectStatus(p))
	}
	return all
}

// ownProject returns the project of this user's that has a VM of that name; nil for none, or for more than one.
func ownProject(vm string) *projects.Project {
	all, _ := (&projects.Watcher{Dir: projects.Dir(), Log: slog.New(slog.DiscardHandler)}).Scan()
	return projects.Of(all, vm, "")
}
