package integration

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// from runs f in the guest's namespace and returns what it returned.
func (g *guestVM) from(t *testing.T, f func() error) (err error) {
	t.Helper()
	g.do(t, func() error { err = f(); return nil })
	return err
}

func listenHost(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestTheGuestReachesTheHostWhereARuleSaysSo(t *testing.T) {
	dir := t.TempDir()
	inGuest, onHost := filepath.Join(dir, "guest.sock"), filepath.Join(dir, "host.sock")
	g := newGuest(t, "dev")
	answer(listenHost(t, "127.0.0.1:9000"))
	answer(listenSocket(t, onHost))
	taken := g.listen(t, "127.0.0.1:9002")
	h := startHostRules(t, g, fmt.Sprintf(`
[[ports]]
guest = "9000-9002"
reverse = true

[[ports]]
guest_socket = %q
host_socket = %q
reverse = true
`, inGuest, onHost))
	f := h.forwardOf(t, "dev", "[::1]:9000", active)
	if !f.Reverse || f.Path != "mux" || fmt.Sprint(f.Guest, f.Host) != "[127.0.0.1:9000 [::1]:9000] [127.0.0.1:9000 [::1]:9000]" {
		t.Errorf("%+v", f)
	}
	h.forwardOf(t, "dev", inGuest, active)
	for _, at := range []struct{ network, address string }{{"tcp", "127.0.0.1:9000"}, {"tcp", "[::1]:9000"}, {"unix", inGuest}} {
		for _, size := range []int{1, 5 << 20} {
			if err := g.from(t, func() error { return answered(at.network, at.address, size) }); err != nil {
				t.Errorf("%s, %d bytes: %v", at.address, size, err)
			}
		}
	}

	// Nobody is at 9001 of the host.
	if err := g.from(t, func() error { return firstRead("127.0.0.1:9001") }); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a service that is not there: %v, want a reset", err)
	}
	h.forwardOf(t, "dev", "127.0.0.1:9001", func(f status.Forward) bool { return f.Reverse && strings.Contains(f.LastError, "refused") })

	// The guest's own server keeps its port, and is forwarded as any other.
	h.forwardOf(t, "dev", "127.0.0.1:9002", func(f status.Forward) bool {
		return f.Reverse && f.State == status.Claim && strings.Contains(f.Reason, "in use")
	})
	h.forwardOf(t, "dev", "127.0.0.1:9002", func(f status.Forward) bool { return !f.Reverse && active(f) })
	_ = taken.Close()
	h.forwardOf(t, "dev", "127.0.0.1:9002", func(f status.Forward) bool { return f.Reverse && active(f) })

	// What listens in the guest for the host is not announced to it: the port on
	// the host would lead to itself.
	time.Sleep(time.Second) // ten scans
	for _, f := range h.vm(t, "dev").Forwards {
		if !f.Reverse {
			t.Errorf("announced back: %+v", f)
		}
	}
	if c, err := net.Dial("tcp", "127.0.0.1:9001"); err == nil {
		_ = c.Close()
		t.Error("port 9001 of the host is open")
	}

	// A new guest agent is told again.
	g.agent.kill()
	eventually(t, "the loss to be noticed", func() bool { return h.vm(t, "dev").State != status.Connected })
	g.startAgent(t)
	h.forwardOf(t, "dev", inGuest, active)
	if err := g.from(t, func() error { return answered("unix", inGuest, 1000) }); err != nil {
		t.Error(err)
	}
	h.stop(t)
	eventually(t, "the guest to close the port", func() bool {
		return errors.Is(g.from(t, func() error { return firstRead("127.0.0.1:9000") }), syscall.ECONNREFUSED)
	})
}
