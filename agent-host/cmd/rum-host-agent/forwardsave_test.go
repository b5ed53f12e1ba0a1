package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

// With sudo -E root asks the agent of the user who types, or what says it is one.
func TestRootSavesNothingWhereAnAgentOfAnotherUserSays(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("another user's agent: needs root")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	socket, file := filepath.Join(dir, "s"), filepath.Join(dir, "rum.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	here(t, "fake-agent", socket, file)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st, err := control.NewClient(socket).Status(t.Context()); err == nil && st.Version == "fake" {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := (&exec.Cmd{Path: self, Args: []string{"rum-host-agent", "--socket", socket, "forward", "add", "9000:5000", "--save", "--vm", "dev"}}).CombinedOutput()
	if err == nil || !strings.Contains(string(out), socket+" is run by user 65534, not by 0") {
		t.Errorf("%v: %s", err, out)
	}
	if text, err := os.ReadFile(file); err != nil || len(text) > 0 {
		t.Errorf("%v, and the file has %q", err, text)
	}
}
