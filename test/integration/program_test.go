package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// work runs an echo server of the namespace in a directory, with these arguments.
func (ns *namespace) work(t *testing.T, addr, dir string, args ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asEcho+"="+addr)
	ns.do(t, cmd.Start)
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// Three servers that have one name, on ports that no rule names.
func TestRulesTellServersOfOneNameApartByCommandLineAndDirectory(t *testing.T) {
	g := newGuest(t, "dev")
	shop, blog := filepath.Join(t.TempDir(), "shop"), filepath.Join(t.TempDir(), "blog")
	for _, dir := range []string{shop, blog} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	toTheRoot := "~" + strings.Repeat("/..", 10) // whatever the home of this user is
	h := startHostRules(t, g, fmt.Sprintf(`
[[forward]]
cwd = %q
host_ip = "127.0.0.21"
label = "the shop"

[[forward]]
process = "--role=admin"
host_ip = "127.0.0.22"

[[forward]]
cwd = %q
ignore = true
`, toTheRoot+shop, blog))
	g.work(t, "0.0.0.0:7810", shop)
	g.work(t, "0.0.0.0:7811", "/", "--role=admin", "--password=hunter2")
	g.work(t, "0.0.0.0:7812", blog)
	g.work(t, "0.0.0.0:7813", "/")
	for port, want := range map[int]string{7810: "127.0.0.21:7810", 7811: "127.0.0.22:7811", 7813: "127.0.0.1:7813"} {
		f := h.awaitForward(t, "dev", port, "where its rule has it", func(f status.Forward) bool {
			return active(f) && f.Host[0] == want
		})
		if label := map[int]string{7810: "the shop"}[port]; f.Label != label {
			t.Errorf("port %d has the label %q, want %q", port, f.Label, label)
		}
	}
	h.awaitForward(t, "dev", 7812, "ignored", func(f status.Forward) bool { return f.State == status.Ignored })

	all, err := json.Marshal(h.vm(t, "dev"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command(filepath.Join(bin, "rum-host-agent"), "status", "--socket", h.socket).Output()
	if err != nil {
		t.Fatal(err)
	}
	for what, said := range map[string]string{
		"status --json": string(all), "status": string(text), "the host agent's log": h.log.String(), "the guest agent's log": g.agent.log.String(),
	} {
		if strings.Contains(said, "hunter2") || strings.Contains(said, shop) {
			t.Errorf("%s tells of a program:\n%s", what, said)
		}
	}
	if !strings.Contains(string(text), "the shop") {
		t.Errorf("status says nothing of the label:\n%s", text)
	}
}
