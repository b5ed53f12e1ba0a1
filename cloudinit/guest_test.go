package cloudinit_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/test/sysroot"
)

// guest is a root directory in which the installing script really runs.
type guest struct {
	*sysroot.Root
	t testing.TB
}

func systemdGuest(t testing.TB) *guest { return &guest{sysroot.Systemd(t, "x86_64"), t} }

// needed are the programs that the scripts take, and the shell.
var needed = strings.Fields("sh base64 cat chmod cp grep gzip id mkdir mktemp mv rm rmdir sed sha256sum tar")

// openrcGuest runs OpenRC, and has what is needed from busybox, and no other programs.
func openrcGuest(t testing.TB) *guest {
	programs := make(map[string]string)
	for _, name := range needed {
		programs[name] = tool(t, "busybox", "busybox-static")
	}
	g := &guest{sysroot.Bare(t, "x86_64", programs), t}
	for _, name := range []string{"rc-update", "rc-service"} {
		g.Write("local/sbin/"+name, sysroot.Recorder, 0o755)
	}
	g.Shell = "/usr/local/sbin/sh"
	return g
}

// attach makes tree the volume with the seed.
func (g *guest) attach(name, tree string) {
	g.t.Helper()
	dest := filepath.Join(g.Dir, name)
	if err := os.RemoveAll(dest); err != nil {
		g.t.Fatal(err)
	}
	if err := os.CopyFS(dest, os.DirFS(tree)); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) mustRun(script []byte) (calls []string) {
	g.t.Helper()
	out, calls, err := g.Run(g.t.Context(), script)
	if err != nil {
		g.t.Fatalf("the script failed: %v\n%s", err, out)
	}
	return calls
}

// boothook is the script in a seed's vendor-data, as cloud-init hands it to the shell.
func boothook(t testing.TB, vendorData []byte) []byte {
	t.Helper()
	var entries []map[string]string
	if err := yaml.Unmarshal(vendorData, &entries); err != nil {
		t.Fatal(err)
	}
	return []byte(entries[0]["content"])
}

// boot attaches the seed and runs its boothook.
func (g *guest) boot(s *cloudinit.Seed) (calls []string) {
	g.t.Helper()
	g.attach("seed", extract(g.t, s))
	return g.mustRun(boothook(g.t, documents(g.t, s).VendorData))
}

// installed checks that what s carries is in place, for nobody but root to read.
func (g *guest) installed(s *cloudinit.Seed, service string) {
	g.t.Helper()
	if g.Read("local/bin/rum-guest-agent") != string(s.Agents[1].Binary) {
		g.t.Error("the agent is not the seed's for amd64")
	}
	if g.Read("etc/rum-agent/key") != string(s.Key.Encode()) {
		g.t.Error("the key is not the seed's")
	}
	for name, mode := range map[string]os.FileMode{
		"local/bin/rum-guest-agent": 0o755, "etc/rum-agent/key": 0o600, "etc/rum-agent": os.ModeDir | 0o700, service: 0o644,
	} {
		if strings.HasPrefix(service, "etc/init.d") && name == service {
			mode = 0o755
		}
		if info, err := os.Stat(filepath.Join(g.Dir, name)); err != nil || info.Mode() != mode {
			g.t.Errorf("%s: mode %v, error %v", name, info.Mode(), err)
		}
	}
	for _, pattern := range []string{"local/bin/*.new*", "etc/rum-agent/*.new*", "etc/systemd/system/*.new*", "run/rum-agent*"} {
		if left, _ := filepath.Glob(filepath.Join(g.Dir, pattern)); len(left) != 0 {
			g.t.Errorf("left behind: %v", left)
		}
	}
}

func wantCalls(t testing.TB, got []string, want ...string) {
	t.Helper()
	var services []string
	for _, call := range got {
		if !strings.HasPrefix(call, "mount ") && !strings.Contains(call, " is-") {
			services = append(services, call)
		}
	}
	if strings.Join(services, "\n") != strings.Join(want, "\n") {
		t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(services, "\n"), strings.Join(want, "\n"))
	}
}

const unit = "etc/systemd/system/rum-guest-agent.service"
