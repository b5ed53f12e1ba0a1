package integration

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAHostAgentThatWasStoppedResetsNobody stops the host agent for longer than a
// silence that counts, as a debugger or a busy machine does. The guest was there all
// the time: the agent asks before it judges, and clients that connect meanwhile are
// served.
func TestAHostAgentThatWasStoppedResetsNobody(t *testing.T) {
	g := newGuest(t, "dev")
	greet(g.listen(t, "127.0.0.1:7300"), "hello")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7300, "active", active)
	pid := h.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5500 * time.Millisecond) // what the test is about
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		if !answers("127.0.0.1:7300", "hello") {
			t.Fatalf("connection %d after the stop was not served", n)
		}
	}
	if log := h.log.String(); strings.Contains(log, "no sign of life") {
		t.Errorf("the agent took the guest for silent")
	}
}
