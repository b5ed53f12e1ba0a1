// Package rumproject makes what rum makes of a project: a work directory that names the
// project's rum.toml.
package rumproject

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

// New writes a file of that name with that text, and makes its work directory in data.
func New(t testing.TB, data, name, text string) (file, workDir string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if workDir, err = WorkDir(data, file); err != nil {
		t.Fatal(err)
	}
	return file, workDir
}

// WorkDir makes the work directory in data of a file, whose path is free of symbolic links.
func WorkDir(data, file string) (string, error) {
	name := config.ProjectID(file)
	if vm := config.VMName(file); vm != "" {
		name += "-" + vm
	}
	dir := filepath.Join(data, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "config_path"), []byte(file), 0o600)
}
