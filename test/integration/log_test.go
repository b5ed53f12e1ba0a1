package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

// TestALogThatNobodyReadsStopsNothing gives the host agent a standard error that is
// full, and two guests whose commands talk without end. status answers, and SIGTERM
// ends it.
func TestALogThatNobodyReadsStopsNothing(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	socket := filepath.Join(t.TempDir(), "control.sock")
	noise := "exec:yes " + strings.Repeat("x", 900) + " >&2"
	cmd := exec.Command(filepath.Join(bin, "rum-host-agent"), "run", "--socket", socket, "--vm", "one="+noise, "--vm", "two="+noise, "--vm", "three="+noise)
	cmd.Stderr = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	// The pipe takes 64 KiB, and three VMs have sixty lines of a kilobyte each.
	answered := 0
	eventually(t, "status, again and again", func() bool {
		if _, err := control.NewClient(socket).Status(t.Context()); err == nil {
			answered++
		}
		return answered >= 100
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Error("SIGTERM does not end the agent")
	}
}
