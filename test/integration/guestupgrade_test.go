package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// buildOf builds an agent of a version.
func buildOf(t *testing.T, file, pkg, version string) {
	t.Helper()
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+version, "-o", file, "github.com/rum-vm/rum-agent/"+pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
}

// TestAGuestAgentIsUpgradedOverItsLink has one with a key and one without, and one that a command of its host's starts.
func TestAGuestAgentIsUpgradedOverItsLink(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIRECTORY", filepath.Join(dir, "state"))
	const guestMain, hostMain = "agent-guest/cmd/rum-guest-agent", "agent-host/cmd/rum-host-agent"
	installed, offered := filepath.Join(dir, "vm", "rum-guest-agent"), filepath.Join(dir, "rum-guest-agent-linux-"+runtime.GOARCH)
	buildOf(t, installed, guestMain, "v0.1.0")
	buildOf(t, offered, guestMain, "v0.2.0")
	buildOf(t, filepath.Join(dir, "rum-host-agent"), hostMain, "v0.2.0")

	g := newGuest(t, "dev")
	g.agent.stop(t)
	open := &guestVM{namespace: newNamespace(t), name: "open", socket: filepath.Join(t.TempDir(), "open.sock")}
	g.do(t, func() error {
		cmd := exec.Command(installed, "--listen", "unix:"+g.socket, "--key-file", g.key)
		cmd.WaitDelay = 5 * time.Second // what waits has its output, for the old agent's
		g.agent = startCommand(t, cmd)
		return nil
	})
	t.Cleanup(func() { endWaiting(t, dir) })
	open.do(t, func() error { open.agent = startBy(t, installed, "--listen", "unix:"+open.socket); return nil })
	far := filepath.Join(dir, "far", "rum-guest-agent")
	old, err := os.ReadFile(installed)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(far), 0o700)
	}
	if err == nil {
		err = os.WriteFile(far, old, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	h.program = startBy(t, filepath.Join(dir, "rum-host-agent"), "run", "--socket", h.socket, "--vm", g.vm(), "--vm", open.vm(),
		"--vm", "gone=unix:"+filepath.Join(dir, "gone.sock"), "--vm", "far=exec:STATE_DIRECTORY="+filepath.Join(dir, "farstate")+" exec "+far+" --stdio --key-file "+g.key+",key="+g.key)
	eventually(t, "the links", func() bool {
		st, err := control.NewClient(h.socket).Status(t.Context())
		return err == nil && len(st.VMs) == 4 && !slices.ContainsFunc(st.VMs, func(vm status.VM) bool { return vm.State != status.Connected && vm.Name != "gone" })
	})
	if w := h.vm(t, "dev").Warning; !strings.Contains(w, "older than this host agent") || !strings.Contains(w, "rum-host-agent upgrade dev") {
		t.Errorf("the status says %q", w)
	}
	if w := h.vm(t, "open").Warning; !strings.Contains(w, "rum-host-agent install open") {
		t.Errorf("without a key the status says %q", w)
	}
	program := filepath.Join(dir, "rum-host-agent")
	upgrade := func(args ...string) (stdout, stderr string, status int) {
		t.Helper()
		cmd := exec.Command(program, append(append([]string{"upgrade"}, args...), "--socket", h.socket)...)
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return out.String(), said.String(), cmd.ProcessState.ExitCode()
	}
	stale := filepath.Join(dir, "stale", filepath.Base(offered))
	if err := os.MkdirAll(filepath.Dir(stale), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stale, old, 0o700); err != nil {
		t.Fatal(err)
	}
	out, said, code := upgrade("dev", "--agent", stale)
	if code != 1 || out != "" || !strings.Contains(said, "is of another build than this program: version v0.1.0, and not v0.2.0") || strings.Contains(said, "sending") {
		t.Errorf("with a binary of another build, exit status %d, %q\n%s", code, out, said)
	}
	out, said, code = upgrade()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	if code != 1 || !slices.Equal(lines, []string{"dev has v0.2.0 now, and had v0.1.0", "far has v0.2.0 now, and had v0.1.0"}) || !strings.Contains(said, "1 of 3 guest agents were not upgraded") ||
		!strings.Contains(said, "open has no key, and without one its guest agent connects to ports and does no more\ngive it one with: rum-host-agent install open --socket "+h.socket+"\n") {
		t.Errorf("exit status %d, %q\n%s", code, out, said)
	}
	if vm := h.vm(t, "dev"); vm.AgentVersion != "v0.2.0" || vm.Warning != "" || vm.AgentArch != runtime.GOARCH {
		t.Errorf("the status says %s, %s, %q", vm.AgentVersion, vm.AgentArch, vm.Warning)
	}
	there, _ := os.ReadFile(installed)
	want, err := os.ReadFile(offered)
	if err != nil || !bytes.Equal(there, want) {
		t.Errorf("what is installed is not what was offered: %v", err)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", g.agent.cmd.Process.Pid)); err != nil || exe != installed {
		t.Errorf("the agent runs %s: %v", exe, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "state", "upgrade", "pending")); len(left) > 0 {
		t.Error("the old agent would come back")
	}
	if said, status := h.command(t, "logs", "dev"); status != 0 || !strings.Contains(said, "this agent has taken the place of another") {
		t.Errorf("the new agent's log, exit status %d:\n%s", status, said)
	}
	if out, said, code := upgrade("dev"); code != 0 || out != "dev has v0.2.0 already\n" {
		t.Errorf("once more, exit status %d, %q\n%s", code, out, said)
	}
	// Another binary of the same version is told apart by what is in it.
	rebuilt := filepath.Join(dir, "rebuilt", filepath.Base(offered))
	if err := os.MkdirAll(filepath.Dir(rebuilt), 0o700); err != nil {
		t.Fatal(err)
	}
	want = append(want, "of another build"...)
	if err := os.WriteFile(rebuilt, want, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{offered, rebuilt, rebuilt} {
		has := "dev has v0.2.0 already\n"
		if there, _ := os.ReadFile(installed); file == rebuilt && !bytes.Equal(there, want) {
			has = "dev has this build of v0.2.0 now, and had another\n"
		}
		out, said, code := upgrade("dev", "--agent", file)
		if code != 0 || out != has || strings.Contains(said, "sending") != strings.Contains(has, "now") {
			t.Errorf("with %s, exit status %d, %q, want %q\n%s", file, code, out, has, said)
		}
	}
	if there, _ := os.ReadFile(installed); !bytes.Equal(there, want) {
		t.Error("what is installed is not what was offered at last")
	}
	// By an older build only where that is allowed.
	program = filepath.Join(dir, "stale", "rum-host-agent")
	buildOf(t, program, hostMain, "v0.1.0")
	if out, said, code := upgrade("dev"); code != 1 || out != "" || !strings.HasPrefix(said, "rum-host-agent: the guest agent of dev, v0.2.0, is newer than v0.1.0\ninstall a newer rum-host-agent here, or go back with: rum-host-agent upgrade dev --allow-downgrade --socket ") {
		t.Errorf("by an older one, exit status %d, %q\n%s", code, out, said)
	}
	if out, said, code := upgrade("dev", "--allow-downgrade"); code != 0 || out != "dev has v0.1.0 now, and had v0.2.0\n" {
		t.Errorf("by an older one that is allowed, exit status %d, %q\n%s", code, out, said)
	}
	program = filepath.Join(dir, "rum-host-agent")
	out, said, code = upgrade("open", "--json")
	var told struct {
		Upgrades []struct{ VM, From, To, Error string }
	}
	if err := json.Unmarshal([]byte(out), &told); err != nil || code != 1 || len(told.Upgrades) != 1 || told.Upgrades[0].VM != "open" ||
		told.Upgrades[0].From != "v0.1.0" || told.Upgrades[0].To != "v0.2.0" || !strings.Contains(told.Upgrades[0].Error, "no key") {
		t.Errorf("as JSON, exit status %d: %v\n%s\n%s", code, err, out, said)
	}
	if out, said, code := upgrade("gone"); code != 1 || out != "" || !strings.HasPrefix(said, "rum-host-agent: the guest agent of gone is not linked\nsee why with: rum-host-agent status gone") {
		t.Errorf("of a VM that is down, exit status %d, %q\n%s", code, out, said)
	}
	if said, code := h.command(t, "logs", "gone"); code != 1 || !strings.HasSuffix(said, "\nsee why with: rum-host-agent status gone --socket "+h.socket+"\n") {
		t.Errorf("the log of a VM that is down, exit status %d\n%s", code, said)
	}
	if _, said, code := upgrade("nobody"); code != 1 || !strings.Contains(said, `there is no VM "nobody"`) {
		t.Errorf("of no VM, exit status %d\n%s", code, said)
	}
}

// endWaiting ends the script that would put the old agent back, which has a directory among its arguments.
func endWaiting(t *testing.T, dir string) {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range all {
		words, _ := os.ReadFile(file)
		if !bytes.HasPrefix(words, []byte("sh\x00-c\x00sleep ")) || !bytes.Contains(words, []byte(dir)) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(-pid, syscall.SIGKILL) // with its sleep
	}
}
