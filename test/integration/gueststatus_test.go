package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheGuestSeesWhatBecameOfItsPorts types rum-guest-agent status in the guest.
func TestTheGuestSeesWhatBecameOfItsPorts(t *testing.T) {
	run := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", run)
	g := newGuest(t, "dev")
	rules := filepath.Join(t.TempDir(), "rum.toml")
	if err := os.WriteFile(rules, []byte("[[forward]]\nguest = 9000\nignore = true\n[[forward]]\nguest = 80\nhost = 8080\n[[forward]]\nguest = 3001\nhost = 13001\nhost_ip = \"127.0.0.7\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	holder, err := net.Listen("tcp4", "127.0.0.1:5432")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	status := func() string {
		out, err := exec.Command(filepath.Join(bin, "rum-guest-agent"), "status").CombinedOutput()
		if err != nil {
			return fmt.Sprint(string(out), err)
		}
		return string(out)
	}
	shows := func(lines ...string) {
		t.Helper()
		var last string
		defer func() {
			if t.Failed() {
				t.Log(last)
			}
		}()
		eventually(t, fmt.Sprintf("%q in the status", lines), func() bool {
			last = status()
			for _, line := range lines {
				if !strings.Contains(last, line) {
					return false
				}
			}
			return true
		})
	}
	shows("no host is linked")
	for _, port := range []string{"80", "3001", "5432", "9000"} {
		g.do(t, func() error {
			l, err := net.Listen("tcp", ":"+port)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		})
	}
	h := start(t, "rum-host-agent", "run", "--socket", filepath.Join(run, "control.sock"), "--config", rules, "--vm", g.vm())
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	shows(name+", auth psk\n", "  80/tcp    -> localhost:8080 on the host\n", "  5432/tcp  waits: 5432 is taken on the host\n",
		"  3001/tcp  -> 13001 on the host, at another address than localhost\n", "  9000/tcp  kept in by the host's rules\n")
	for shell, times := range map[string]int{"sh -i": 1, "sh": 0} {
		if got := strings.Count(hint(t, shell), "80/tcp    -> localhost:8080 on the host"); got != times {
			t.Errorf("%s shows the ports %d times, and not %d", shell, got, times)
		}
	}
	holder.Close()
	shows("  5432/tcp  -> localhost:5432 on the host\n")
	if out, err := exec.Command(filepath.Join(bin, "rum-host-agent"), "release", "5432", "--socket", filepath.Join(run, "control.sock")).CombinedOutput(); err != nil {
		t.Errorf("release: %v\n%s", err, out)
	}
	shows("  5432/tcp  given back on the host, until nothing listens here any more and something does anew\n")
	h.kill()
	shows("no host is linked")
	g.agent.kill()
	shows("no rum-guest-agent runs here", "exit status 3")

	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	keyless := &guestVM{namespace: newNamespace(t), name: "keyless", socket: filepath.Join(t.TempDir(), "keyless.sock")}
	keyless.startAgent(t)
	startHost(t, "", keyless)
	shows(name + ", auth none\n")
}

// hint is what a shell says whose user evaluates the snippet for profiles, twice.
func hint(t *testing.T, shell string) string {
	t.Helper()
	words := strings.Fields(shell)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "ENV=")
	const profile = `eval "$(rum-guest-agent profile)"` + "\n"
	cmd.Stdin = strings.NewReader(profile + profile)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", shell, err, out)
	}
	return string(out)
}
