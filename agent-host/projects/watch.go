package projects

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
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

	known map[string]*entry // by the name of the work directory
	err   string            // why Dir cannot be read, as last logged
}

// entry is a work directory.
type entry struct {
	seen    stamp    // of the file that names the rum.toml
	project *Project // nil if it is none, and problem says why
	problem string
}

// stamp tells versions of a file apart.
type stamp struct {
	modified time.Time
	changed  syscall.Timespec // also who may read it
	size     int64
}

// Scan looks for projects, and returns those there are now, by domain and id. changed
// is false if neither they nor their files differ from the last time.
func (w *Watcher) Scan() (all []*Project, changed bool) {
	names, err := w.list()
	if err != nil {
		// A failed scan is not one that finds nothing.
		if text := err.Error(); text != w.err {
			w.err = text
			w.Log.Warn("rum's projects cannot be looked for", "error", err)
		}
		return w.all(), w.poll()
	}
	w.err = ""
	if w.known == nil {
		w.known, changed = make(map[string]*entry), true
	}
	for name, e := range w.known {
		if !slices.Contains(names, name) {
			delete(w.known, name)
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
// file of theirs, and after each value of now, until ctx ends.
func (w *Watcher) Run(ctx context.Context, now <-chan os.Signal, changed func([]*Project)) {
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
		case <-now:
			for _, p := range all {
				p.File.Reread()
			}
			changed(all)
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

// look sees to one work directory, and reports whether it is that of a project from
// now on. It is until it goes: what it is named after is a hash of the file's path.
func (w *Watcher) look(name string) bool {
	e := w.known[name]
	if e == nil {
		e = &entry{}
		w.known[name] = e
	}
	if e.project != nil {
		return false
	}
	dir := filepath.Join(w.Dir, name)
	path, err := e.configPath(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && path == "":
		return false // rum has not made it yet, or nothing is new
	case err == nil && name != workDirOf(path):
		err = fmt.Errorf("%s is not the directory that rum has for %s; the project was moved, or is not rum's", dir, path)
	}
	if err != nil {
		if text := err.Error(); text != e.problem {
			e.problem = text
			w.Log.Warn("a project is not used", "error", err)
		}
		return false
	}
	id := config.ProjectID(path)
	e.project = &Project{
		ID: id, Domain: cmp.Or(config.VMName(path), id), WorkDir: dir, File: config.OpenProject(path, w.Remember),
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

// configPath reads which file a work directory is for; empty if that is as it was.
func (e *entry) configPath(dir string) (string, error) {
	file := filepath.Join(dir, configPath)
	info, err := os.Lstat(file)
	if err != nil {
		return "", err
	}
	now := stamp{info.ModTime(), info.Sys().(*syscall.Stat_t).Ctim, info.Size()}
	if now == e.seen || now.size == 0 {
		return "", nil
	}
	e.seen = now
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", file)
	}
	if err := errors.Join(own(dir), own(file)); err != nil {
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
	if !filepath.IsAbs(path) || len(path) > maxPath || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("%s holds no path", file)
	}
	return path, nil
}

// own refuses what is another user's.
func own(path string) error {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if uid := os.Geteuid(); int(st.Uid) != uid {
		return fmt.Errorf("%s belongs to user %d, not to %d", path, st.Uid, uid)
	}
	return nil
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
