package cloudinit_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// guest is a root directory in which the installing script really runs: the machine's own programs, its own /etc, /run,
// /var and /usr/local, and recorders instead of what would reach a service manager or a disk.
type guest struct {
	t     testing.TB
	root  string
	shell string
}

// recorder appends its name and arguments to the log.
const recorder = "#!/bin/sh\necho \"${0##*/} $*\" >>/calls\n"

// fakes are the programs that the script must not find the real one of. The volume with the seed is /seed.
var fakes = map[string]string{
	"blkid":  "#!/bin/sh\ncase \"$*\" in *LABEL=CIDATA*) [ ! -d /decoy ] || echo /decoy; [ ! -d /seed ] || echo /seed ;; esac\n",
	"mount":  "#!/bin/sh\necho mount \"$@\" >>/calls\nexec /bin/mount -o bind \"$3\" \"$4\"\n",
	"umount": "#!/bin/sh\nexec /bin/umount \"$@\"\n",
	"uname":  "#!/bin/sh\ncat /machine\n",
}

func newGuest(t testing.TB, programs ...string) *guest {
	t.Helper()
	g := &guest{t: t, root: t.TempDir(), shell: "/bin/sh"}
	for _, dir := range []string{"etc/systemd/system", "etc/init.d", "run", "var/lib", "usr", "proc", "dev", "local/bin", "local/sbin"} {
		if err := os.MkdirAll(filepath.Join(g.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range fakes {
		g.write("local/sbin/"+name, text, 0o755)
	}
	for _, name := range programs {
		g.write("local/sbin/"+name, recorder, 0o755)
	}
	g.write("machine", "x86_64\n", 0o644)
	g.write("dev/null", "", 0o644)
	return g
}

// systemdGuest runs systemd, as far as the script can see.
func systemdGuest(t testing.TB) *guest {
	g := newGuest(t, "systemctl")
	if err := os.MkdirAll(filepath.Join(g.root, "run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	return g
}

// openrcGuest runs OpenRC, and has busybox for all other programs.
func openrcGuest(t testing.TB) *guest {
	g := newGuest(t, "rc-update", "rc-service")
	busybox := tool(t, "busybox", "busybox")
	for _, applet := range strings.Fields("sh base64 cat chmod cp id mkdir mktemp mv rm sed sha256sum tar") {
		if err := os.Symlink(busybox, filepath.Join(g.root, "local/sbin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	g.shell = "/usr/local/sbin/sh"
	return g
}

func (g *guest) write(name, text string, mode os.FileMode) {
	g.t.Helper()
	path := filepath.Join(g.root, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) read(name string) string {
	g.t.Helper()
	data, err := os.ReadFile(filepath.Join(g.root, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		g.t.Fatal(err)
	}
	return string(data)
}

// attach makes tree the volume with the seed.
func (g *guest) attach(name, tree string) {
	g.t.Helper()
	dest := filepath.Join(g.root, name)
	if err := os.RemoveAll(dest); err != nil {
		g.t.Fatal(err)
	}
	if err := os.CopyFS(dest, os.DirFS(tree)); err != nil {
		g.t.Fatal(err)
	}
}

// enter sets the root up in a mount namespace of its own, for the arguments root, shell and script.
const enter = `set -eu
cd "$1"
for dir in bin sbin lib lib32 lib64; do
	[ ! -L "/$dir" ] || ln -sfn "$(readlink "/$dir")" "$dir"
	[ -L "/$dir" ] || [ ! -d "/$dir" ] || { mkdir -p "$dir"; mount --rbind "/$dir" "$dir"; }
done
mount --rbind /usr usr
mount --bind local/bin usr/local/bin
mount --bind local/sbin usr/local/sbin
mount --rbind /proc proc
mount --bind /dev/null dev/null
exec chroot . "$2" "$3"
`

// run runs the script and returns its output and the calls that the recorders saw.
func (g *guest) run(script []byte) (out string, calls []string, err error) {
	g.t.Helper()
	g.write("script", string(script), 0o700)
	g.write("calls", "", 0o666)
	args := []string{"-m", "/bin/sh", "-c", enter, "sh", g.root, g.shell, "/script"}
	if os.Geteuid() != 0 {
		args = append([]string{"-U", "-r"}, args...)
	}
	cmd := exec.CommandContext(g.t.Context(), tool(g.t, "unshare", "util-linux"), args...)
	cmd.WaitDelay = 10 * time.Second
	output, err := cmd.CombinedOutput()
	for line := range strings.Lines(g.read("calls")) {
		calls = append(calls, strings.TrimSpace(line))
	}
	return string(output), calls, err
}

func (g *guest) mustRun(script []byte) (calls []string) {
	g.t.Helper()
	out, calls, err := g.run(script)
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
	if g.read("local/bin/rum-guest-agent") != string(s.Agents[1].Binary) {
		g.t.Error("the agent is not the seed's for amd64")
	}
	if g.read("etc/rum-agent/key") != string(s.Key.Encode()) {
		g.t.Error("the key is not the seed's")
	}
	for name, mode := range map[string]os.FileMode{
		"local/bin/rum-guest-agent": 0o755, "etc/rum-agent/key": 0o600, "etc/rum-agent": os.ModeDir | 0o700, service: 0o644,
	} {
		if strings.HasPrefix(service, "etc/init.d") && name == service {
			mode = 0o755
		}
		if info, err := os.Stat(filepath.Join(g.root, name)); err != nil || info.Mode() != mode {
			g.t.Errorf("%s: mode %v, error %v", name, info.Mode(), err)
		}
	}
	for _, pattern := range []string{"local/bin/*.new*", "etc/rum-agent/*.new*", "etc/systemd/system/*.new*", "run/rum-agent*"} {
		if left, _ := filepath.Glob(filepath.Join(g.root, pattern)); len(left) != 0 {
			g.t.Errorf("left behind: %v", left)
		}
	}
}

func wantCalls(t testing.TB, got []string, want ...string) {
	t.Helper()
	var services []string
	for _, call := range got {
		if !strings.HasPrefix(call, "mount ") {
			services = append(services, call)
		}
	}
	if strings.Join(services, "\n") != strings.Join(want, "\n") {
		t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(services, "\n"), strings.Join(want, "\n"))
	}
}

const unit = "etc/systemd/system/rum-guest-agent.service"

func TestSeedInstallsOnceAndUpgrades(t *testing.T) {
	g := systemdGuest(t)
	s := newSeed(t)
	calls := g.boot(s)
	wantCalls(t, calls, "systemctl daemon-reload", "systemctl --quiet enable rum-guest-agent.service",
		"systemctl --no-block restart rum-guest-agent.service")
	if !strings.HasPrefix(calls[0], "mount -o ro,nosuid,nodev,noexec /seed /run/rum-agent.") {
		t.Errorf("the seed was mounted by %q", calls[0])
	}
	g.installed(s, unit)

	if calls := g.boot(s); len(calls) != 0 {
		t.Errorf("the second boot did %q", calls)
	}

	g.write("local/bin/rum-guest-agent", "by hand", 0o755)
	if calls := g.boot(s); len(calls) != 0 || g.read("local/bin/rum-guest-agent") != "by hand" {
		t.Errorf("an agent put there by hand did not stay: %q", calls)
	}

	s.Agents[1].Binary = []byte("newer")
	wantCalls(t, g.boot(s), "systemctl daemon-reload", "systemctl --quiet enable rum-guest-agent.service",
		"systemctl --no-block restart rum-guest-agent.service")
	g.installed(s, unit)

	if err := os.Remove(filepath.Join(g.root, "etc/rum-agent/key")); err != nil {
		t.Fatal(err)
	}
	g.boot(s)
	g.installed(s, unit)
}

func TestInterruptedInstallationIsFinishedAtTheNextBoot(t *testing.T) {
	g := systemdGuest(t)
	s := newSeed(t)
	g.write("local/sbin/systemctl", "#!/bin/sh\nexit 1\n", 0o755)
	g.attach("seed", extract(t, s))
	script := boothook(t, documents(t, s).VendorData)
	if _, _, err := g.run(script); err == nil {
		t.Fatal("the script did not say that systemctl failed")
	}
	g.write("local/sbin/systemctl", recorder, 0o755)
	wantCalls(t, g.mustRun(script), "systemctl daemon-reload", "systemctl --quiet enable rum-guest-agent.service",
		"systemctl --no-block start rum-guest-agent.service")
	g.installed(s, unit)
}

func TestSeedIsFoundAmongOthersByItsKey(t *testing.T) {
	g := systemdGuest(t)
	other := newSeed(t)
	other.Key = keyfile.New()
	g.attach("decoy", extract(t, other))
	s := newSeed(t)
	g.boot(s)
	g.installed(s, unit)

	// Without a volume: where an image builder copied the seed to.
	g = systemdGuest(t)
	if err := os.MkdirAll(filepath.Join(g.root, "var/lib/cloud/seed"), 0o755); err != nil {
		t.Fatal(err)
	}
	g.attach("decoy", extract(t, other))
	g.attach("var/lib/cloud/seed/nocloud", extract(t, s))
	g.mustRun(boothook(t, documents(t, s).VendorData))
	g.installed(s, unit)
}

func TestFailedInstallationSaysWhyAndChangesNothing(t *testing.T) {
	s := newSeed(t)
	tree := extract(t, s)
	script := boothook(t, documents(t, s).VendorData)
	payload, err := s.Installer()
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		prepare func(*guest)
		script  []byte
		want    string
	}{
		"no seed":   {func(*guest) {}, script, "no CIDATA volume carries this agent"},
		"other CPU": {func(g *guest) { g.write("machine", "riscv64\n", 0o644) }, script, "no agent for riscv64 here, only for: amd64 arm64"},
		"damaged": {func(g *guest) {
			g.attach("seed", tree)
			g.write("seed/rum-agent/rum-guest-agent-linux-amd64", "damaged", 0o755)
		}, script, "rum-guest-agent-linux-amd64 is damaged in the seed"},
		"incomplete": {func(g *guest) {
			g.attach("seed", tree)
			os.Remove(filepath.Join(g.root, "seed/rum-agent/rum-guest-agent-linux-amd64"))
		}, script, "the seed has no rum-guest-agent-linux-amd64"},
		"cut payload": {func(*guest) {}, payload[:len(payload)-60], "the files at the end of /script are damaged"},
	} {
		g := systemdGuest(t)
		row.prepare(g)
		out, calls, err := g.run(row.script)
		if err == nil || !strings.Contains(out, "rum-guest-agent: "+row.want) {
			t.Errorf("%s: error %v, output %s", name, err, out)
		}
		wantCalls(t, calls)
		if g.read("local/bin/rum-guest-agent") != "" || g.read("etc/rum-agent/key") != "" || g.read("var/lib/rum-agent/applied") != "" {
			t.Errorf("%s: something was installed", name)
		}
		if left, _ := filepath.Glob(filepath.Join(g.root, "run/rum-agent*")); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
	g := newGuest(t)
	g.attach("seed", tree)
	if out, _, err := g.run(script); err == nil || !strings.Contains(out, "neither systemd nor OpenRC runs here") {
		t.Errorf("no service manager: error %v, output %s", err, out)
	}
}

func TestSeedInstallsWithBusyboxAndOpenRC(t *testing.T) {
	g := openrcGuest(t)
	s := newSeed(t)
	wantCalls(t, g.boot(s), "rc-update --quiet add rum-guest-agent boot", "rc-service rum-guest-agent restart")
	g.installed(s, "etc/init.d/rum-guest-agent")
	if calls := g.boot(s); len(calls) != 0 {
		t.Errorf("the second boot did %q", calls)
	}
}

func TestUserDataOnlyInstallsFromItself(t *testing.T) {
	for name, g := range map[string]*guest{"systemd": systemdGuest(t), "busybox": openrcGuest(t)} {
		s := newSeed(t)
		s.Agents[1].Binary = bytes.Repeat([]byte("some megabytes\n"), 200_000)
		doc, err := s.UserDataOnly()
		if err != nil {
			t.Fatal(err)
		}
		hook := parts(t, doc)[0].body
		g.mustRun(hook)
		service := unit
		if name == "busybox" {
			service = "etc/init.d/rum-guest-agent"
		}
		g.installed(s, service)
		if calls := g.mustRun(hook); len(calls) != 0 {
			t.Errorf("%s: the second boot did %q", name, calls)
		}
	}
}

func TestInstallerRunsAsOftenAsOneLikes(t *testing.T) {
	g := systemdGuest(t)
	s := newSeed(t)
	g.boot(s)
	byHand := newSeed(t)
	byHand.Agents[1].Binary = []byte("#!/bin/sh\necho \"newer $*\"\n")
	script, err := byHand.Installer()
	if err != nil {
		t.Fatal(err)
	}
	reload := []string{"systemctl daemon-reload", "systemctl --quiet enable rum-guest-agent.service"}
	out, calls, err := g.run(script)
	if err != nil || !strings.HasSuffix(out, "newer --version\n") {
		t.Errorf("error %v, output %s", err, out)
	}
	wantCalls(t, calls, append(reload, "systemctl restart rum-guest-agent.service")...)
	wantCalls(t, g.mustRun(script), append(reload, "systemctl start rum-guest-agent.service")...)
	g.installed(byHand, unit)

	if calls := g.boot(s); len(calls) != 0 {
		t.Errorf("the next boot undid it: %q", calls)
	}
	g.installed(byHand, unit)
}

func TestScriptParsesInEveryShell(t *testing.T) {
	s := newSeed(t)
	script, err := s.Installer()
	if err != nil {
		t.Fatal(err)
	}
	for _, shell := range [][]string{{"sh", "-n"}, {"bash", "-n"}, {tool(t, "busybox", "busybox"), "sh", "-n"}} {
		cmd := exec.Command(shell[0], shell[1:]...)
		cmd.Stdin = bytes.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell[0], err, out)
		}
	}
}
