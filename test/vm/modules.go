package vm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// moduleSet answers from modules.dep and modules.builtin of one kernel.
type moduleSet struct {
	dir     string
	files   map[string]string   // name -> file, relative to dir
	needs   map[string][]string // file -> files, as modules.dep lists them
	builtin map[string]bool
}

func openModules(dir string) (*moduleSet, error) {
	dep, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("read the module dependencies: %w", err)
	}
	defer dep.Close()
	builtin, err := os.Open(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("read the built-in modules: %w", err)
	}
	defer builtin.Close()
	set, err := parseModules(dep, builtin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	set.dir = dir
	return set, nil
}

func parseModules(dep, builtin io.Reader) (*moduleSet, error) {
	set := &moduleSet{files: map[string]string{}, needs: map[string][]string{}, builtin: map[string]bool{}}
	lines := bufio.NewScanner(dep)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, needs, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep: no colon in %q", lines.Text())
		}
		set.files[moduleName(file)] = file
		set.needs[file] = strings.Fields(needs)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("modules.dep: %w", err)
	}
	lines = bufio.NewScanner(builtin)
	for lines.Scan() {
		set.builtin[moduleName(lines.Text())] = true
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("modules.builtin: %w", err)
	}
	return set, nil
}

// moduleName is the name the kernel knows a module file by.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// closure returns the files of the named modules and of all they need, each
// after what it needs. What the kernel has built in needs no file.
func (s *moduleSet) closure(names ...string) ([]string, error) {
	var order []string
	for _, name := range names {
		name = strings.ReplaceAll(name, "-", "_")
		file, ok := s.files[name]
		if !ok && s.builtin[name] {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("kernel module %s: %w", name, fs.ErrNotExist)
		}
		// A line of modules.dep is complete: it lists indirect needs too,
		// the ones to be inserted first at its end.
		for _, need := range slices.Backward(s.needs[file]) {
			if !slices.Contains(order, need) {
				order = append(order, need)
			}
		}
		if !slices.Contains(order, file) {
			order = append(order, file)
		}
	}
	return order, nil
}

// read returns a module as the kernel takes it, decompressed.
func (s *moduleSet) read(ctx context.Context, file string) ([]byte, error) {
	file = filepath.Join(s.dir, file)
	tool := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[path.Ext(file)]
	if tool == "" {
		return os.ReadFile(file)
	}
	if err := requireTools(tool); err != nil {
		return nil, err
	}
	out, err := output(ctx, tool, "-dc", file)
	return []byte(out), err
}
