package userconfig

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/projects"
)

// ProjectOf returns the project of this user's that has a VM of that name; nil for none, or for more than one. One that
// is not used, and might be it, is said on stderr, and so is a file that is not used as it is.
func ProjectOf(vm string, stderr io.Writer) *projects.Project {
	log := slog.New(slog.DiscardHandler)
	w := &projects.Watcher{Dir: projects.Dir(), Remember: Remembered(log), Log: log}
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

// DaemonFor is the libvirt daemon that a domain is at: of the command line, else the one of the two that its project names, at
// the usual socket of that; p is nil for no project.
func DaemonFor(flag string, p *projects.Project) string {
	if p != nil && flag == "" && !libvirt.SameDaemon(p.URI(), libvirt.DefaultURI()) {
		return p.URI()
	}
	return flag
}
