package userconfig

import (
	"cmp"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/test/rumproject"
)

func TestOfProjectsWithOneNameForTheirVMTheDiskTellsAndStatusAndLogSaySo(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	var files, workDirs []string
	for range 2 {
		file, workDir := rumproject.New(t, projects.Dir(), "shop.rum.toml", "[image]\nbase = \"x\"\n")
		files, workDirs = append(files, file), append(workDirs, workDir)
	}
	var log logbuf.Buffer
	r := NewProjects(nil, nil, "", slog.New(slog.NewTextHandler(&log, nil)))
	of := r.At("qemu:///system")
	follows := func(state libvirt.State, disk string) (id, warning string) {
		if p := of(libvirt.Domain{Name: "shop", State: state, Disk: disk}); p != nil {
			id = p.ID
		}
		for vm := range r.NoteRivals(slices.Values([]status.VM{{Name: "shop"}})) {
			warning = vm.Warning
		}
		return id, warning
	}
	for range 2 {
		id, warning := follows(libvirt.Running, filepath.Join(workDirs[1], "overlay.qcow2"))
		if id != config.ProjectID(files[1]) || !strings.HasPrefix(warning, "follows "+files[1]+", whose disk it has, and not "+files[0]) {
			t.Errorf("%q: %s", id, warning)
		}
		follows(libvirt.Off, "") // where no disk is known
	}
	noOnes := func() {
		t.Helper()
		for _, disk := range []string{"/home/bob/w/overlay.qcow2", "/images/mine.qcow2", ""} {
			if id, warning := follows(libvirt.Running, disk); id != "" || !strings.HasPrefix(warning, "follows no project: "+files[0]) && !strings.HasPrefix(warning, "follows no project: "+files[1]) ||
				!strings.Contains(warning, cmp.Or(disk, "none in a file")) {
				t.Errorf("%q: %q: %s", disk, id, warning)
			}
		}
	}
	noOnes()
	if n := strings.Count(log.String(), "projects have a VM of this name"); n != 4 {
		t.Errorf("the log says so %d times:\n%s", n, log.String())
	}
	if err := os.RemoveAll(workDirs[0]); err != nil {
		t.Fatal(err)
	}
	all, _ := r.watcher.Scan()
	r.update(all)
	// A name alone makes a VM nobody's, also where one project has it.
	noOnes()
	if id, warning := follows(libvirt.Running, filepath.Join(workDirs[1], "overlay.qcow2")); id != config.ProjectID(files[1]) || warning != "" {
		t.Errorf("%q: %s", id, warning)
	}
}
