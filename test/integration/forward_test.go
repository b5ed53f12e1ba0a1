package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

func TestAServerInTheGuestAnswersOnLocalhost(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)

	l := g.listen(t, "0.0.0.0:8080")
	began := time.Now()
	page := strings.Repeat("a page of the guest\n", 10_000)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) })}
	go func() { _ = server.Serve(l) }()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for _, url := range []string{"http://127.0.0.1:8080/", "http://[::1]:8080/"} {
		eventually(t, url, func() bool {
			resp, err := client.Get(url)
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			return err == nil && string(body) == page
		})
		t.Logf("%s answered %v after the guest listened", url, time.Since(began).Round(time.Millisecond))
	}

	f := h.awaitForward(t, "dev", 8080, "idle, and named", func(f status.Forward) bool {
		return active(f) && f.ConnectionsActive == 0 && f.Process != ""
	})
	if f.Path != "unix" || f.ConnectionsTotal < 2 || f.BytesIn < 2*uint64(len(page)) {
		t.Errorf("status says %+v", f)
	}
	own := h.vm(t, "dev").Loopback + ":8080"
	if want := "[127.0.0.1:8080 [::1]:8080 " + own + "]"; fmt.Sprint(f.Host) != want || fmt.Sprint(f.Listening) != want || fmt.Sprint(f.Guest) != "[0.0.0.0:8080]" {
		t.Errorf("host %v, want %v; guest %v", f.Host, want, f.Guest)
	}

	if got := statusJSON(t, h); len(got.VMs) != 1 || len(got.VMs[0].Forwards) != 1 || got.VMs[0].Forwards[0].Port != 8080 {
		t.Errorf("status --json says %+v", got)
	}

	_ = server.Close()
	began = time.Now()
	eventually(t, "the port to be closed again", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:8080")
		if err == nil {
			_ = c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	t.Logf("closed %v after the guest's listener", time.Since(began).Round(time.Millisecond))
}

func TestEveryKindOfListenerIsReached(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	for port, addr := range map[int]string{
		8081: "127.0.0.1:8081", 8082: "0.0.0.0:8082", 8083: "[::1]:8083", 8084: "[::]:8084", 8085: "127.0.0.9:8085",
	} {
		greet(g.listen(t, addr), addr)
		h.awaitForward(t, "dev", port, "active", active)
		for _, host := range []string{"127.0.0.1", "[::1]"} {
			if at := fmt.Sprintf("%s:%d", host, port); !answers(at, addr) {
				t.Errorf("%s in the guest does not answer on %s", addr, at)
			}
		}
	}
}

func TestListenersOnOnePortAreOneForward(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	four, six := g.listen(t, "127.0.0.1:8080"), g.listen(t, "[::1]:8080")
	greet(four, "four")
	greet(six, "six")
	h.awaitForward(t, "dev", 8080, "whole", func(f status.Forward) bool { return active(f) && len(f.Guest) == 2 })
	if !answers("127.0.0.1:8080", "four") || !answers("[::1]:8080", "six") {
		t.Error("the client's family does not decide between equal listeners")
	}
	before := socketInode(t, 8080)
	_ = four.Close()
	h.awaitForward(t, "dev", 8080, "half", func(f status.Forward) bool { return active(f) && len(f.Guest) == 1 })
	if !answers("127.0.0.1:8080", "six") {
		t.Error("the forward went although a listener is left")
	}
	if after := socketInode(t, 8080); after != before {
		t.Error("the host listener was opened anew")
	}
	_ = six.Close()
	eventually(t, "the forward to go", func() bool { _, found := h.forward(t, "dev", 8080); return !found })
}

func TestAKilledGuestAgentComesBackToTheSameListeners(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	greet(g.listen(t, "0.0.0.0:8080"), "hello")
	h.awaitForward(t, "dev", 8080, "active", active)
	before := socketInode(t, 8080)

	g.agent.kill()
	eventually(t, "the loss to be noticed", func() bool { return h.vm(t, "dev").State != status.Connected })
	if err := firstRead("127.0.0.1:8080"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without an agent and a bridge: %v, want a reset", err)
	}

	g.startAgent(t)
	began := time.Now()
	eventually(t, "the forward to work again", func() bool { return answers("127.0.0.1:8080", "hello") })
	t.Logf("back %v after the agent was started", time.Since(began).Round(time.Millisecond))
	if after := socketInode(t, 8080); after != before {
		t.Error("the host listener was opened twice")
	}
}

func TestTwoVMsWantOnePort(t *testing.T) {
	one, two := newGuest(t, "one"), newGuest(t, "two")
	h := startHost(t, "", one, two)
	first := one.listen(t, "0.0.0.0:8080")
	greet(first, "one")
	h.awaitForward(t, "one", 8080, "active", active)
	greet(two.listen(t, "0.0.0.0:8080"), "two")
	f := h.awaitForward(t, "two", 8080, "a claim", func(f status.Forward) bool { return f.State == status.Claim })
	if !strings.Contains(f.Reason, "one") {
		t.Errorf("the claim's reason %q does not name the VM that has the port", f.Reason)
	}
	if !answers("127.0.0.1:8080", "one") {
		t.Error("the first VM lost its port")
	}
	_ = first.Close()
	h.awaitForward(t, "two", 8080, "active", active)
	if !answers("127.0.0.1:8080", "two") {
		t.Error("the second VM did not take over")
	}
}

func TestAPortInUseIsAClaimThatNamesItsHolder(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	greet(g.listen(t, "0.0.0.0:8080"), "guest")
	me := fmt.Sprintf("[%d]", os.Getpid())
	h.awaitForward(t, "dev", 8080, "a claim that names "+me, func(f status.Forward) bool {
		return f.State == status.Claim && strings.Contains(f.Reason, me)
	})
	_ = held.Close()
	h.awaitForward(t, "dev", 8080, "a claim that says when it is bound", func(f status.Forward) bool {
		return f.State == status.Claim && strings.HasSuffix(f.Reason, me+" just now, and is bound 3s after that")
	})
	h.awaitForward(t, "dev", 8080, "active", active)
	if !answers("127.0.0.1:8080", "guest") {
		t.Error("the claim was not bound when its holder left")
	}
}

// As with a service that systemd or a developer restarts.
func TestAServiceOfTheHostThatRestartsFindsItsPort(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	var service net.Listener
	for n := range 3 {
		var err error
		if service, err = net.Listen("tcp", "0.0.0.0:8080"); err != nil {
			t.Fatalf("after %d restarts: %v", n, err)
		}
		if n == 0 {
			greet(g.listen(t, "0.0.0.0:8080"), "guest")
		}
		me := fmt.Sprintf("[%d]", os.Getpid())
		h.awaitForward(t, "dev", 8080, "a claim that names "+me, func(f status.Forward) bool {
			return f.State == status.Claim && strings.Count(f.Reason, "is held by") == 2 && strings.Contains(f.Reason, me)
		})
		_ = service.Close()
		time.Sleep(600 * time.Millisecond)
	}
	h.awaitForward(t, "dev", 8080, "a claim that says why it waits", func(f status.Forward) bool {
		return f.State == status.Claim && strings.Count(f.Reason, "is bound 30s after that, because it came back before") == 2
	})
}

func TestTheBridgeCarriesWhenTheAgentIsGone(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, ",bridge="+g.joined(t), g)
	greet(g.listen(t, "0.0.0.0:8080"), "everywhere")
	greet(g.listen(t, "127.0.0.1:8081"), "inside only")
	h.awaitForward(t, "dev", 8080, "active", active)
	h.awaitForward(t, "dev", 8081, "active", active)
	if !answers("127.0.0.1:8080", "everywhere") || !answers("127.0.0.1:8081", "inside only") {
		t.Fatal("not reached through the agent")
	}

	g.agent.kill()
	eventually(t, "the loss to be noticed", func() bool { return h.vm(t, "dev").State != status.Connected })
	if !answers("127.0.0.1:8080", "everywhere") {
		t.Error("not reached over the bridge")
	}
	if f, _ := h.forward(t, "dev", 8080); f.Path != "bridge" {
		t.Errorf("path %q, want bridge", f.Path)
	}
	if err := firstRead("127.0.0.1:8081"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a port on the guest's loopback: %v, want a reset", err)
	}
	h.awaitForward(t, "dev", 8081, "explained", func(f status.Forward) bool { return strings.Contains(f.LastError, "listens only on [127.0.0.1:8081]") })

	g.startAgent(t)
	h.awaitForward(t, "dev", 8080, "back on its path", func(f status.Forward) bool { return f.Path == "unix" })
}

// firstRead connects and tells how the first read ended. A reset that comes at
// once is an error of the connect.
func firstRead(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = c.Read(make([]byte, 1))
	return err
}

// statusJSON is what the command prints, with no field that is not documented.
func statusJSON(t *testing.T, h *hostAgent) (st status.Status) {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "rum-host-agent"), "status", "--json", "--socket", h.socket).Output()
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&st); err != nil {
		t.Fatal(err)
	}
	return st
}

// socketInode identifies the host's listening socket on 127.0.0.1.
func socketInode(t *testing.T, port uint64) uint64 {
	t.Helper()
	proc, err := procfs.NewFS("/proc")
	if err != nil {
		t.Fatal(err)
	}
	table, err := proc.NetTCP() //lint:ignore SA1019 one look at a table is what it is for
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table {
		if row.LocalPort == port && row.LocalAddr.Equal(net.IPv4(127, 0, 0, 1)) && row.St == 0x0a {
			return row.Inode
		}
	}
	t.Fatalf("nothing listens on port %d", port)
	return 0
}
