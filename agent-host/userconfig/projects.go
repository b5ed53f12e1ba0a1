package userconfig

import (
	"cmp"
	"context"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// ofProject is why a file counts.
const ofProject = "of its project"

// Projects ties the projects of this user's rum to VMs.
type Projects struct {
	watcher *projects.Watcher
	agent   *hostagent.Agent
	named   []string // VMs of the command line, which are tied by their names
	log     *slog.Logger

	mu       sync.Mutex
	all      []*projects.Project
	refused  []projects.Refusal
	told     map[*configfile.File]logged // as last logged
	followed map[string]string           // what was last logged of VMs whose name several projects have
	change   []func()
}

// logged is what a file was when it was logged last.
type logged struct {
	config *config.Config
	err    error
}

// NewProjects looks for projects. The VMs of an agent that are named follow theirs from now on. What is in use is kept in
// the directory remember for later runs; empty for none.
func NewProjects(agent *hostagent.Agent, named []string, remember string, log *slog.Logger) *Projects {
	r := &Projects{
		watcher: &projects.Watcher{Dir: projects.Dir(), Remember: remember, Log: log},
		agent:   agent, named: named, log: log, told: make(map[*configfile.File]logged), followed: make(map[string]string),
	}
	all, _ := r.watcher.Scan()
	r.update(all)
	return r
}

// Run follows the projects until ctx ends.
func (r *Projects) Run(ctx context.Context, now <-chan func()) {
	r.watcher.Run(ctx, now, r.update)
}

// OnChange has a function called after each change from now on.
func (r *Projects) OnChange(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.change = append(r.change, f)
}

func (r *Projects) update(all []*projects.Project) {
	r.mu.Lock()
	r.all, r.refused = all, r.watcher.Refused()
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
func (r *Projects) of(name, disk string) *hostagent.Project {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.follow(r.all, name, disk)
}

// At returns what tells which project a domain at a libvirt daemon follows.
func (r *Projects) At(uri string) func(libvirt.Domain) *hostagent.Project {
	return func(dom libvirt.Domain) *hostagent.Project {
		r.mu.Lock()
		defer r.mu.Unlock()
		here := slices.DeleteFunc(slices.Clone(r.all), func(p *projects.Project) bool { return !libvirt.SameDaemon(p.URI(), uri) })
		if dom.State == libvirt.Off { // and its disk is not known
			return forAgent(projects.Of(here, dom.Name, dom.Disk))
		}
		return r.follow(here, dom.Name, cmp.Or(dom.Disk, projects.NoDisk))
	}
}

// follow needs r.mu. It says in the log which project a VM follows, if not the only one that might have it.
func (r *Projects) follow(all []*projects.Project, name, disk string) *hostagent.Project {
	p := projects.Of(all, name, disk)
	rivals := projects.Called(all, name)
	if len(rivals) == 0 || len(rivals) == 1 && p != nil {
		delete(r.followed, name)
	} else if text := rivalry(p, rivals, disk); text != r.followed[name] {
		r.followed[name] = text
		r.log.Warn("projects have a VM of this name", "vm", name, "follows", text)
	}
	return forAgent(p)
}

// rivalry says which of several projects a VM follows, or why not the only one; p is nil for none.
func rivalry(p *projects.Project, rivals []*projects.Project, disk string) string {
	var others []string
	for _, o := range rivals {
		if o != p {
			others = append(others, o.File.Path())
		}
	}
	switch {
	case p == nil && disk == "":
		return "none of its projects " + strings.Join(others, " and ") + ", which have one name for their VMs: nothing tells whose disk it has"
	case p == nil:
		return "no project: " + strings.Join(others, " and ") + " would have a VM of its name, but not its disk, " + disk
	}
	return p.File.Path() + ", whose disk it has, and not " + strings.Join(others, " or ") + ", whose VM has that name too"
}

// NoteRivals adds to what VMs say of themselves that several projects might have them.
func (r *Projects) NoteRivals(vms iter.Seq[status.VM]) iter.Seq[status.VM] {
	return func(yield func(status.VM) bool) {
		for vm := range vms {
			r.mu.Lock()
			text := r.followed[vm.Name]
			r.mu.Unlock()
			if text != "" {
				if vm.Warning != "" {
					vm.Warning += "; "
				}
				vm.Warning += "follows " + text
			}
			if !yield(vm) {
				return
			}
		}
	}
}

// URIs are the libvirt daemons that projects have their domains at.
func (r *Projects) URIs() []string {
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

func forAgent(p *projects.Project) *hostagent.Project {
	if p == nil {
		return nil
	}
	return &hostagent.Project{ID: p.ID, Config: p.File.Current(), Status: func() status.Config { return projectStatus(p) }}
}

func projectStatus(p *projects.Project) status.Config {
	st := Status(p.File, ofProject)
	st.VM = p.Domain
	return st
}

// Status tells about every project.
func (r *Projects) Status() []status.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []status.Config
	for _, p := range r.all {
		all = append(all, projectStatus(p))
	}
	return all
}

// NotUsed tells about the work directories that are no project's.
func (r *Projects) NotUsed() []status.Refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []status.Refused
	for _, d := range r.refused {
		all = append(all, status.Refused{Path: d.Path, Reason: d.Reason.Error(), Remedy: d.Remedy})
	}
	return all
}
