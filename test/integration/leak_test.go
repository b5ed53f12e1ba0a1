package integration

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
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
	connect(100) // pools, spares and what else is made once
	settled := func() (int, int) { return h.descriptors(t), g.agent.descriptors(t) }
	hostBefore, guestBefore := settled()
	connect(3000)
	// Spares and the pipes of the pool come and go; 3,000 do not hide there.
	const slack = 24
	eventually(t, "the descriptors to be closed", func() bool {
		host, guest := settled()
		return host <= hostBefore+slack && guest <= guestBefore+slack
	})
	f, _ := h.forward(t, "dev", 8080)
	if f.ConnectionsActive != 0 || f.ConnectionsTotal < 3100 {
		t.Errorf("status says %d active, %d in total", f.ConnectionsActive, f.ConnectionsTotal)
	}
}

func TestAKilledAgentInMidTransferIsAReset(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	l := g.listen(t, "0.0.0.0:8080")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for buf := make([]byte, 64<<10); ; {
					if _, err := c.Write(buf); err != nil {
						return
					}
				}
			}()
		}
	}()
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

func TestTenThousandIdleConnectionsAreHeldAndReleased(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	var served sync.WaitGroup
	l := g.listen(t, "0.0.0.0:8080")
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	h.awaitForward(t, "dev", 8080, "active", active)
	hostBefore, guestBefore := h.descriptors(t), g.agent.descriptors(t)

	n := connectionsAllowed(t)
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", "127.0.0.1:8080")
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		conns[i] = c
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
	if f, _ := h.forward(t, "dev", 8080); f.ConnectionsActive != int64(n) {
		t.Errorf("status says %d connections are active, %d are", f.ConnectionsActive, n)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	const slack = 24
	eventually(t, "everything to be released", func() bool {
		return h.descriptors(t) <= hostBefore+slack && g.agent.descriptors(t) <= guestBefore+slack
	})
	_ = l.Close()
	served.Wait()
}

// connectionsAllowed is 10,000, or what the limit of open files leaves: this
// process holds both ends of each.
func connectionsAllowed(t *testing.T) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := min(10_000, (int(limit.Max)-500)/2)
	if n < 10_000 {
		t.Logf("with %d connections only; as root, or with a higher limit of open files (ulimit -Hn), with 10,000", n)
	}
	return n
}
