package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// ofProject is why a file counts.
const ofProject = "of its project"

// rumProjects ties the projects of this user's rum to VMs.
type rumProjects struct {
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

// newProjects looks for projects. The VMs of the command line follow theirs from now on.
func newProjects(agent *hostagent.Agent, named []string, remember string, log *slog.Logger) *rumProjects {
	r := &rumProjects{
		watcher: &projects.Watcher{Dir: projects.Dir(), Remember: remember, Log: log},
		agent:   agent, named: named, log: log, told: make(map[*configfile.File]logged), followed: make(map[string]string),
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
func (r *rumProjects) of(name, disk string) *hostagent.Project {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.follow(r.all, name, disk)
}

// at returns what tells which project a domain at a libvirt daemon follows.
func (r *rumProjects) at(uri string) func(libvirt.Domain) *hostagent.Project {
	return func(dom libvirt.Domain) *hostagent.Project {
		r.mu.Lock()
		defer r.mu.Unlock()
		here := slices.DeleteFunc(slices.Clone(r.all), func(p *projects.Project) bool { return !sameDaemon(p.URI(), uri) })
		if dom.State == libvirt.Off { // and its disk is not known
			return forAgent(projects.Of(here, dom.Name, dom.Disk))
		}
		return r.follow(here, dom.Name, cmp.Or(dom.Disk, projects.NoDisk))
	}
}

// follow needs r.mu. It says in the log which project a VM follows, if not the only one that might have it.
func (r *rumProjects) follow(all []*projects.Project, name, disk string) *hostagent.Project {
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

// noteRivals adds to what VMs say of themselves that several projects might have them.
func (r *rumProjects) noteRivals(vms iter.Seq[status.VM]) iter.Seq[status.VM] {
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

// daemonFor is the libvirt daemon that a domain is at: of the command line, else the one of the two that its project names, at
// the usual socket of that; p is nil for no project.
func daemonFor(flag string, p *projects.Project) string {
	if p != nil && flag == "" && !sameDaemon(p.URI(), libvirt.DefaultURI()) {
		return p.URI()
	}
	return flag
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
	return &hostagent.Project{ID: p.ID, Config: p.File.Current(), Status: func() status.Config { return projectStatus(p) }}
}

func projectStatus(p *projects.Project) status.Config {
	st := configStatus(p.File, ofProject)
	st.VM = p.Domain
	return st
}

// status tells about every project.
func (r *rumProjects) status() []status.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []status.Config
	for _, p := range r.all {
		all = append(all, projectStatus(p))
	}
	return all
}

// notUsed tells about the work directories that are no project's.
func (r *rumProjects) notUsed() []status.Refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []status.Refused
	for _, d := range r.refused {
		all = append(all, status.Refused{Path: d.Path, Reason: d.Reason.Error(), Remedy: d.Remedy})
	}
	return all
}

// ownProject returns the project of this user's that has a VM of that name; nil for none, or for more than one. One that
// is not used, and might be it, is said on stderr, and so is a file that is not used as it is.
func ownProject(vm string, stderr io.Writer) *projects.Project {
	log := slog.New(slog.DiscardHandler)
	w := &projects.Watcher{Dir: projects.Dir(), Remember: rememberedConfigs(log), Log: log}
	all, _ := w.Scan()
	p := projects.Of(all, vm, "")
	for _, r := range w.Refused() {
		if p == nil && projects.MayBeOf(r.Path, vm) {
			fmt.Fprintf(stderr, "no project is taken from %s: %s; %s\n", output.Clean(r.Path), output.CleanError(r.Reason.Error()), output.Clean(r.Remedy))
		}
	}
	if p != nil && p.File.Err() != nil {
		used := "what rum does without a word in it is taken"
		if p.File.Found() {
			used = "the last good version is taken"
		}
		fmt.Fprintf(stderr, "%s; %s\n", output.CleanError(output.Mistakes(p.File.Err())[0].Error()), used)
	}
	return p
}
