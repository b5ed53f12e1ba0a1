//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/qga"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// newSSHKey makes a pair of keys and returns the file of the private one.
func newSSHKey(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "ssh_ed25519")
	if err := output(exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rum", "-f", file)); err != nil {
		t.Fatal(err)
	}
	return file
}

// rumWorkDir makes a work directory such as rum has for a VM, and says which rum.toml it is for.
func rumWorkDir(t *testing.T, name string) (workDir, file string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, name+".rum.toml")
	workDir = filepath.Join(t.TempDir(), "rum", config.ProjectID(file)+"-"+name)
	if err := os.MkdirAll(workDir, 0o755); err != nil {
		t.Fatal(err)
	}
	return workDir, file
}

// makeRumProject makes a domain that runs from a work directory one of rum's, as far as install can see: there is a rum.toml,
// which the directory names, beside the key of its user.
func makeRumProject(t *testing.T, workDir, file, user string) {
	t.Helper()
	saveRules(t, file, "[ssh]\nuser = \""+user+"\"\n")
	if err := os.WriteFile(filepath.Join(workDir, "config_path"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_DATA_HOME", filepath.Dir(filepath.Dir(workDir)))
}

const qgaChannel = "<channel type='unix'><target type='virtio' name='" + qga.Channel + "'/></channel>"

// TestWhatIsMissingForTheQEMUGuestAgentIsSaid has domains without an operating system.
func TestWhatIsMissingForTheQEMUGuestAgentIsSaid(t *testing.T) {
	for _, row := range []struct {
		name, devices string
		running       bool
		remedy        string
	}{
		{"off", qgaChannel, false, "start the domain, or resume it"},
		{"bare", "", true, "leave out --via to go in over ssh, or give the domain a channel org.qemu.guest_agent.0"},
		{"empty", qgaChannel, true, "have qemu-guest-agent installed and running in the VM, or leave out --via to go in over ssh"},
	} {
		define(t, row.name, bare(row.name, "q35", row.devices))
		if row.running {
			start(t, row.name)
		}
		said, err := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(binVariable), "rum-host-agent"), "uninstall", row.name, "--via", "qga").CombinedOutput()
		if err == nil {
			t.Errorf("%s: it is done", row.name)
		}
		contains(t, string(said), "rum-host-agent: "+qga.ErrNone.Error()+": domain "+row.name+": guest-exec: ", "\n"+row.remedy+"\n")
	}
}

// goesAndComesBack takes the guest agent out of a Debian guest and brings it in again: over its own sshd, with the key of a
// project, and by the QEMU guest agent.
func goesAndComesBack(t *testing.T, a *hostAgent, name string) {
	agent := filepath.Join(os.Getenv(binVariable), "rum-guest-agent")
	linked := func() {
		t.Helper()
		took := a.until(t, name+" connected with its key", cloudBootLimit, func(st status.Status) bool {
			v := named(st, name)
			return v.State == status.Connected && v.Auth == "psk"
		})
		t.Logf("linked after %v", took.Round(time.Millisecond))
	}
	gone := func() {
		t.Helper()
		a.until(t, name+" without an agent", time.Minute, func(st status.Status) bool { return named(st, name).State != status.Connected })
	}
	round := func(via ...string) {
		t.Helper()
		began := time.Now()
		contains(t, rum(t, append([]string{"uninstall", name}, via...)...), "rum-guest-agent is removed")
		gone()
		install := append([]string{"install", name, "--agent", agent}, via...)
		contains(t, rum(t, install...), "installed, and started")
		linked()
		t.Logf("%q: %v", via, time.Since(began).Round(time.Second))
	}
	round()
	contains(t, rum(t, "install", name, "--agent", agent), "nothing to do: it is here already, with this key, and runs")

	channel := filepath.Join(t.TempDir(), "channel.xml")
	if err := os.WriteFile(channel, []byte(qgaChannel), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "attach-device", name, channel, "--live")
	const ping = `{"execute": "guest-ping"}`
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		out, err := exec.CommandContext(t.Context(), "virsh", "-q", "qemu-agent-command", name, ping).CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the QEMU guest agent does not answer: %s", strings.TrimSpace(string(out)))
		}
	}
	round("--via", "qga")
}
