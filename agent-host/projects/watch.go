package projects

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/configfile"
	"github.com/rum-vm/rum-agent/agent-host/filewatch"
)

// maxPath bounds what is read of a file that holds a path, in bytes: PATH_MAX of
// linux/limits.h.
const maxPath = 4096

// configPath is the file of a work directory that names its rum.toml.
const configPath = "config_path"

// maxProjects bounds how many are followed.
const maxProjects = 1000

// Watcher follows the projects of this user.
type Watcher struct {
	// Dir is where the work directories are; see [Dir].
	Dir string
	// Remember keeps the last good versions of files for later runs; empty for none.
	Remember string
	Log      *slog.Logger

	known  map[string]*entry // by the name of the work directory
	unread *Refusal          // of Dir; nil where that can be read
}

// entry is a work directory. One that is neither a project's nor refused is not complete.
type entry struct {
	project *Project
	refusal *Refusal
}

// Scan looks for projects, and returns those there are now, by domain and id. changed
// is false if neither they nor their files nor what is refused differ from the last time.
func (w *Watcher) Scan() (all []*Project, changed bool) {
	names, err := w.list()
	if err != nil {
		// A failed scan is not one that finds nothing.
		was := w.unread
		if w.unread = newRefusal(w.Dir, err); w.unread.differs(was) {
			changed = true
			w.Log.Warn("rum's projects cannot be looked for", "error", err)
		}
		return w.all(), w.poll() || changed
	}
	if w.unread != nil {
		w.unread, changed = nil, true
	}
	if w.known == nil {
		w.known, changed = make(map[string]*entry), true
	}
	for name, e := range w.known {
		if !slices.Contains(names, name) {
			delete(w.known, name)
			changed = changed || e.refusal != nil
			if e.project != nil {
				changed = true
				w.Log.Info("project is gone", "file", e.project.File.Path(), "domain", e.project.Domain)
			}
		}
	}
	for _, name := range names {
		changed = w.look(name) || changed
	}
	changed = w.poll() || changed
	return w.all(), changed
}

// Run calls changed with the projects at once, after each change of them or of a
// file of theirs, and after each value of now, which it calls then, until ctx ends.
func (w *Watcher) Run(ctx context.Context, now <-chan func(), changed func([]*Project)) {
	notices := filewatch.New()
	defer notices.Close()
	for first := true; ; first = false {
		all, differ := w.Scan()
		if differ || first {
			changed(all)
		}
		notices.Expect(w.places())
		select {
		case <-ctx.Done():
			return
		case done := <-now:
			for _, p := range all {
				p.File.Reread()
			}
			changed(all)
			done()
		case <-notices.C:
		}
	}
}

// places are the files that projects are told by, and whether one of them is changing.
func (w *Watcher) places() (changing bool, paths []string) {
	if w.Dir == "" {
		return false, nil
	}
	paths = append(paths, filepath.Join(w.Dir, "new"))
	for name, e := range w.known {
		if e.project == nil {
			paths = append(paths, filepath.Join(w.Dir, name, configPath))
			continue
		}
		paths = append(paths, e.project.File.Path())
		changing = changing || e.project.File.Changing()
	}
	return changing, paths
}

// list names the work directories, of which no more than the first many count.
func (w *Watcher) list() ([]string, error) {
	if w.Dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(w.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && isWorkDir(e.Name()) && len(names) < maxProjects {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// look sees to one work directory, and reports whether something about it is new. That it
// is a project's stays until it goes: what it is named after is a hash of the file's path.
func (w *Watcher) look(name string) bool {
	e := w.known[name]
	if e == nil {
		e = &entry{}
		w.known[name] = e
	}
	if e.project != nil {
		return false
	}
	dir, was := filepath.Join(w.Dir, name), e.refusal
	e.refusal = nil
	path, err := readConfigPath(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && path == "":
		return was != nil // rum has not made it yet
	case err == nil && name != workDirOf(path):
		err = refuse("put the project back where it was; or remove the directory, if its VM is gone or it is not rum's",
			"%s is not the directory that rum has for %s; the project was moved, or is not rum's", dir, path)
	}
	if err != nil {
		e.refusal = newRefusal(dir, err)
		if !e.refusal.differs(was) {
			return false
		}
		w.Log.Warn("a project is not used", "error", err, "remedy", e.refusal.Remedy)
		return true
	}
	e.project = &Project{
		ID: config.ProjectID(path), Domain: config.DomainName(path), WorkDir: dir, File: configfile.OpenProject(path, w.Remember),
	}
	w.Log.Info("project found", "file", path, "domain", e.project.Domain)
	return true
}

// workDirOf is the name that rum gives to the work directory of a file's VM.
func workDirOf(path string) string {
	if name := config.VMName(path); name != "" {
		return config.ProjectID(path) + "-" + name
	}
	return config.ProjectID(path)
}

// readConfigPath reads which file a work directory is for; empty if that is not written yet.
func readConfigPath(dir string) (string, error) {
	file := filepath.Join(dir, configPath)
	info, err := os.Lstat(file)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", refuse("remove the directory, if it is not rum's", "%s is not a regular file", file)
	}
	if err := cmp.Or(own(dir), own(file)); err != nil {
		return "", err
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPath+1))
	if err != nil {
		return "", err
	}
	path := strings.TrimRight(string(text), "\n")
	if path != "" && !filepath.IsAbs(path) || len(path) > maxPath || strings.ContainsRune(path, 0) {
		return "", refuse("remove the directory, if it is not rum's", "%s holds no path", file)
	}
	return path, nil
}

// poll looks at the projects' files, and reports whether one was read anew.
func (w *Watcher) poll() (changed bool) {
	for _, e := range w.known {
		if e.project != nil && e.project.File.Poll() {
			changed = true
		}
	}
	return changed
}

func (w *Watcher) all() []*Project {
	var all []*Project
	for _, e := range w.known {
		if e.project != nil {
			all = append(all, e.project)
		}
	}
	slices.SortFunc(all, func(a, b *Project) int { return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.ID, b.ID)) })
	return all
}
