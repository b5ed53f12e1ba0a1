package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

func TestThreeThousandConnectionsLeaveNothingBehind(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	greet(g.listen(t, "0.0.0.0:8080"), "hello")
	h.awaitForward(t, "dev", 8080, "active", active)
	connect := func(n int) {
		for range n {
			if !answers("127.0.0.1:8080", "hello") {
				t.Fatal("a connection failed")
			}
		}
	}
	connect(100) // pools, idle connections and what else is made once
	settled := func() (int, int) { return h.descriptors(t), g.agent.descriptors(t) }
	hostBefore, guestBefore := settled()
	connect(3000)
	// Idle connections and the pipes of the pool come and go; 3,000 do not hide there.
	const slack = 24
	eventually(t, "the descriptors to be closed", func() bool {
		host, guest := settled()
		return host <= hostBefore+slack && guest <= guestBefore+slack
	})
	h.awaitForward(t, "dev", 8080, "idle again", func(f status.Forward) bool {
		return f.ConnectionsActive == 0 && f.ConnectionsTotal >= 3100
	})
}

func TestAKilledAgentInMidTransferIsAReset(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	l := g.listen(t, "0.0.0.0:8080")
	serveEach(l, func(c net.Conn) {
		for buf := make([]byte, 64<<10); ; {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	h.awaitForward(t, "dev", 8080, "active", active)
	c, err := net.Dial("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.CopyN(io.Discard, c, 16<<20); err != nil {
		t.Fatal(err)
	}
	g.agent.kill()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the download ended with %v, want a reset", err)
	}
}

// TestTenThousandIdleConnectionsAreHeldAndReleased holds them in two halves, each
// with agents and a server of its own: an agent has two descriptors for each
// connection, and the usual limit of a process is 20,000.
func TestTenThousandIdleConnectionsAreHeldAndReleased(t *testing.T) {
	const half = 5_000
	type side struct {
		guest       *guestVM
		host        *hostAgent
		addr        string
		hostBefore  int
		guestBefore int
	}
	var sides []*side
	for i, name := range []string{"one", "two"} {
		s := &side{guest: newGuest(t, name), addr: fmt.Sprintf("127.0.0.1:808%d", i)}
		s.guest.echo(t, s.addr)
		s.host = startHost(t, "", s.guest)
		s.host.awaitForward(t, name, 8080+i, "active", active)
		s.hostBefore, s.guestBefore = s.host.descriptors(t), s.guest.agent.descriptors(t)
		sides = append(sides, s)
	}

	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range 2 * half {
		c, err := net.Dial("tcp", sides[i%2].addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		conns = append(conns, c)
	}
	// Each of them works, also after all the others were opened.
	for i, c := range conns {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	for i, s := range sides {
		if f, _ := s.host.forward(t, s.guest.name, 8080+i); f.ConnectionsActive != half {
			t.Errorf("status says %d connections are active, %d are", f.ConnectionsActive, half)
		}
	}
	for _, c := range conns {
		_ = c.Close()
	}
	const slack = 48 // idle connections among them
	eventually(t, "everything to be released", func() bool {
		for _, s := range sides {
			if s.host.descriptors(t) > s.hostBefore+slack || s.guest.agent.descriptors(t) > s.guestBefore+slack {
				return false
			}
		}
		return true
	})
}

// asEcho makes the test binary an echo server on the address it names.
const asEcho = "RUM_TEST_ECHO"

// echo runs an echo server in the namespace, as a process of its own.
func (ns *namespace) echo(t *testing.T, addr string) {
	t.Helper()
	t.Cleanup(ns.echoUntil(t, addr))
}

// echoUntil is echo until it is told to stop, once at least.
func (ns *namespace) echoUntil(t *testing.T, addr string) (stop func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asEcho+"="+addr)
	ns.do(t, cmd.Start)
	return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
}

func echo(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}
