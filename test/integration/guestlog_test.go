package integration

import (
	"bufio"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostCommand runs a command of the host agent's, and returns what it writes and its exit status.
func (h *hostAgent) command(t *testing.T, args ...string) (said string, status int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "rum-host-agent"), append(args, "--socket", h.socket)...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestTheLogOfAGuestAgentIsReadFromItsHost reads it, follows it while another host links and goes, and ends that.
func TestTheLogOfAGuestAgentIsReadFromItsHost(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	said, status := h.command(t, "logs", "dev")
	if status != 0 || !strings.Contains(said, "listening") || !strings.Contains(said, "host connected") {
		t.Errorf("exit status %d:\n%s", status, said)
	}
	if last, status := h.command(t, "logs", "dev", "-n", "1"); status != 0 || strings.Count(last, "\n") != 1 {
		t.Errorf("the last line, exit status %d:\n%s", status, last)
	}

	cmd := exec.Command(filepath.Join(bin, "rum-host-agent"), "logs", "dev", "--follow", "-n", "1", "--socket", h.socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	next := func(want string) {
		t.Helper()
		for end := time.After(20 * time.Second); ; {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("it ends before %q", want)
				}
				if strings.Contains(line, want) {
					return
				}
			case <-end:
				t.Fatalf("%q does not come", want)
			}
		}
	}
	next("") // it is there
	other := startHost(t, "", g)
	next("host connected")
	other.stop(t)
	next("host disconnected")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for range lines {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted, it ends with %v", err)
	}

	following := exec.Command(filepath.Join(bin, "rum-host-agent"), "logs", "dev", "--follow", "--socket", h.socket)
	var stderr strings.Builder
	following.Stderr = &stderr
	if out, err = following.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := following.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	g.agent.kill()
	_, _ = io.Copy(io.Discard, out)
	_ = following.Wait()
	if code := following.ProcessState.ExitCode(); code != 1 || !strings.Contains(stderr.String(), "was cut") {
		t.Errorf("when the agent was killed, exit status %d: %s", code, &stderr)
	}
}

// TestAGuestAgentThatCannotShowItsLogIsNamedWithTheRemedy is one without a key, and an older one.
func TestAGuestAgentThatCannotShowItsLogIsNamedWithTheRemedy(t *testing.T) {
	g := &guestVM{namespace: newNamespace(t), name: "dev", socket: filepath.Join(t.TempDir(), "dev.sock")}
	g.startAgent(t)
	h := startHost(t, "", g)
	said, status := h.command(t, "logs", "dev")
	if want := "rum-host-agent: dev has no key, and without one its guest agent connects to ports and does no more\ngive it one with: rum-host-agent install dev --socket " + h.socket + "\n"; status != 1 || said != want {
		t.Errorf("without a key, exit status %d:\n%s", status, said)
	}
	old := *g
	old.socket = withoutFeatures(t, g.socket)
	h = startHost(t, "", &old)
	said, status = h.command(t, "logs", "dev")
	if status != 1 || !strings.Contains(said, "is older and does not know that yet\nreplace it with: rum-host-agent install dev --socket "+h.socket+"\n") {
		t.Errorf("of an older agent, exit status %d:\n%s", status, said)
	}
	said, status = h.command(t, "logs", "nobody")
	if status != 1 || !strings.Contains(said, `there is no VM "nobody"`) || !strings.Contains(said, "the agent serves: dev") {
		t.Errorf("of no VM, exit status %d:\n%s", status, said)
	}
}
