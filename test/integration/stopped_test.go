package integration

import (
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
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

// TestAGuestThatStandsStillIsPausedUntilItGoesOn has a connection, so that the guest is asked every second. It is tried anew
// meanwhile, which takes as long as such an attempt may.
func TestAGuestThatStandsStillIsPausedUntilItGoesOn(t *testing.T) {
	g := newGuest(t, "dev")
	greet(g.listen(t, "127.0.0.1:7301"), "hello")
	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 7301, "active", active)
	c, err := net.Dial("tcp", "127.0.0.1:7301")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(c, make([]byte, len("hello"))); err != nil {
		t.Fatal(err)
	}
	pid := g.agent.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // before its end is waited for
	eventually(t, "the silence", func() bool { return h.vm(t, "dev").State == status.Paused })
	for range 50 { // what the test is about
		time.Sleep(100 * time.Millisecond)
		if state := h.vm(t, "dev").State; state != status.Paused {
			t.Fatalf("a guest that stands still is %s", state)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the guest", func() bool { return h.vm(t, "dev").State == status.Connected })
	if n := strings.Count(h.log.String(), "guest is back"); n != 1 {
		t.Errorf("the guest came back %d times", n)
	}
}
