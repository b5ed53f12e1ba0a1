package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

// A person who presses a key waits for it, whatever the agent does.
func TestCompletionTakesNoLongerThanAPersonWaits(t *testing.T) {
	socket, _ := served(t)
	words := func() (string, time.Duration) {
		began := time.Now()
		out, _, err := runHere(t, "__complete", "--socket", socket, "status", "")
		if err != nil {
			t.Fatal(err)
		}
		return out, time.Since(began)
	}
	if out, took := words(); !strings.HasPrefix(out, "dev\tconnected\n") {
		t.Errorf("%q", out)
	} else {
		t.Logf("it took %v", took)
	}
	st, err := control.NewClient(socket).Status(t.Context())
	if err != nil || st.PID == os.Getpid() {
		t.Fatalf("%d %v", st.PID, err)
	}
	if err := syscall.Kill(st.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(st.PID, syscall.SIGCONT) }()
	for stopped := false; !stopped; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", st.PID))
		if err != nil {
			t.Fatal(err)
		}
		stopped = strings.Contains(string(stat), ") T ")
	}
	// The agent never answers: ten times the limit is for a machine that is busy.
	if out, took := words(); strings.Contains(out, "dev") || took > 1500*time.Millisecond {
		t.Errorf("of an agent that stands still: %q after %v", out, took)
	}
}
