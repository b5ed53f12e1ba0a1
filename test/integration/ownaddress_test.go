package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// own is the VM's own loopback address.
func (h *hostAgent) own(t *testing.T, vm string) string {
	t.Helper()
	ip := net.ParseIP(h.vm(t, vm).Loopback)
	if ip == nil || !ip.IsLoopback() {
		t.Fatalf("%s has no loopback address: %q", vm, h.vm(t, vm).Loopback)
	}
	return ip.String()
}

func TestEachVMKeepsItsPortOnItsOwnAddress(t *testing.T) {
	one, two := newGuest(t, "one"), newGuest(t, "two")
	h := startHost(t, "", one, two)
	first := one.listen(t, "0.0.0.0:8080")
	greet(first, "one")
	h.awaitForward(t, "one", 8080, "active", active)
	greet(two.listen(t, "127.0.0.1:8080"), "two")
	two.echo(t, "127.0.0.1:8081")
	h.awaitForward(t, "two", 8081, "active", active)
	own1, own2 := h.own(t, "one"), h.own(t, "two")
	at1, at2 := own1+":8080", own2+":8080"

	f := h.awaitForward(t, "two", 8080, "a claim that is open elsewhere", func(f status.Forward) bool {
		return f.State == status.Claim && slices.Equal(f.Listening, []string{at2})
	})
	if f.Path != "unix" || !strings.HasSuffix(f.Reason, "held by VM one") {
		t.Errorf("status says %+v", f)
	}
	for addr, want := range map[string]string{"127.0.0.1:8080": "one", "[::1]:8080": "one", at1: "one", at2: "two"} {
		if !answers(addr, want) {
			t.Errorf("%s is not VM %s", addr, want)
		}
	}
	row := statusRow(t, h, "two", "8080/tcp")
	if !strings.HasSuffix(row, "is held by VM one; open on "+at2) || !strings.Contains(row, "127.0.0.1:8080,[::1]:8080 ") {
		t.Errorf("the table says %q", row)
	}

	echo, err := net.Dial("tcp", own2+":8081")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	says(t, echo)
	_ = first.Close()
	f = h.awaitForward(t, "two", 8080, "active", active)
	if want := []string{"127.0.0.1:8080", "[::1]:8080", at2}; !slices.Equal(f.Listening, want) || f.Reason != "" {
		t.Errorf("after the take-over status says %+v", f)
	}
	if !answers("127.0.0.1:8080", "two") || !answers(at2, "two") || answers(at1, "one") {
		t.Error("the take-over is not what it should be")
	}
	says(t, echo)

	// The addresses are those of the VMs, not of the order in which they came.
	h.stop(t)
	h = startHost(t, "", two, one)
	if h.own(t, "one") != own1 || h.own(t, "two") != own2 {
		t.Errorf("a new host agent gives %s and %s, not %s and %s", h.own(t, "one"), h.own(t, "two"), own1, own2)
	}
	h.awaitForward(t, "two", 8080, "active", active)
	if !answers(at2, "two") {
		t.Error("a new host agent does not serve the address")
	}
}

func TestUDPOfTwoVMsIsOnTheirOwnAddresses(t *testing.T) {
	one, two := newGuest(t, "one"), newGuest(t, "two")
	h := startHost(t, "", one, two)
	for _, g := range []*guestVM{one, two} {
		echoUDP(g.listenUDP(t, "0.0.0.0:5000"))
		at := h.own(t, g.name) + ":5000"
		h.udpForward(t, g.name, 5000, func(f status.Forward) bool { return slices.Contains(f.Listening, at) })
		if err := asks(dialUDP(t, at), []byte(g.name), 5*time.Second); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		f := h.udpForward(t, g.name, 5000, func(f status.Forward) bool { return f.ConnectionsTotal > 0 })
		if want := map[string]string{"one": status.Active, "two": status.Claim}[g.name]; f.State != want || f.ConnectionsTotal != 1 {
			t.Errorf("status of %s says %+v", g.name, f)
		}
	}
}

// What is on the host keeps localhost from the VM, or the VM's own address, or both,
// and each is its own affair.
func TestTheHostsOwnServersKeepOnlyWhatTheyHave(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	own := h.own(t, "dev")
	me := fmt.Sprintf("[%d]", os.Getpid())
	for i, held := range []string{"127.0.0.1", own, "0.0.0.0"} {
		port := 8080 + i
		l, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", held, port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		greet(l, "host")
		greet(g.listen(t, fmt.Sprintf("0.0.0.0:%d", port)), "guest")
		ownFree, localFree := held == "127.0.0.1", held == own
		f := h.awaitForward(t, "dev", port, "explained", func(f status.Forward) bool {
			return strings.Count(f.Reason, me) == map[string]int{"127.0.0.1": 1, own: 1, "0.0.0.0": 2}[held]
		})
		if active(f) != localFree || slices.Contains(f.Listening, fmt.Sprintf("%s:%d", own, port)) != ownFree {
			t.Errorf("%s is held on the host: %+v", held, f)
		}
		if answers(fmt.Sprintf("%s:%d", own, port), "guest") != ownFree || answers(fmt.Sprintf("127.0.0.1:%d", port), "guest") != localFree {
			t.Errorf("%s is held on the host, and not the other is the guest's", held)
		}
		_ = l.Close()
		f = h.awaitForward(t, "dev", port, "whole", func(f status.Forward) bool { return len(f.Listening) == 3 })
		if f.Reason != "" || !answers(fmt.Sprintf("%s:%d", own, port), "guest") {
			t.Errorf("%s is free: %+v", held, f)
		}
	}
}

// A second host agent finds the addresses taken, and says by whom.
func TestASecondHostAgentWaitsForTheOwnAddressToo(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	greet(g.listen(t, "0.0.0.0:8080"), "guest")
	h.awaitForward(t, "dev", 8080, "active", active)
	second := startHost(t, "", g)
	me := fmt.Sprintf("rum-host-agent[%d]", h.cmd.Process.Pid)
	second.awaitForward(t, "dev", 8080, "a claim on both that names "+me, func(f status.Forward) bool {
		return f.State == status.Claim && strings.Count(f.Reason, me) == 2 && len(f.Listening) == 0
	})
	h.stop(t)
	second.awaitForward(t, "dev", 8080, "taken over", func(f status.Forward) bool { return len(f.Listening) == 3 })
}

// statusRow is what status prints about a port.
func statusRow(t *testing.T, h *hostAgent, vm, port string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "rum-host-agent"), "status", vm, "--socket", h.socket).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimLeft(strings.TrimSpace(line), "! "); strings.HasPrefix(line, port) {
			return line
		}
	}
	t.Fatalf("no %s in\n%s", port, out)
	return ""
}

// says wants a word back from an echo server.
func says(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "word"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Error(err)
	}
}
