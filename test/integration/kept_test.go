package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// The guest says which of its ports are ephemeral; its range is not Linux's own.
func TestPortsThatAGuestGivesToItsClientsStayThere(t *testing.T) {
	g := newGuest(t, "dev")
	g.clientPorts(t, 2000, 2999)
	const clients = 30
	for range clients {
		g.do(t, func() error {
			c, err := net.ListenPacket("udp4", "0.0.0.0:0")
			if err == nil {
				t.Cleanup(func() { _ = c.Close() })
			}
			return err
		})
	}
	kernel := g.listen(t, "127.0.0.1:0") // as Jupyter's
	greet(kernel, "kernel")
	port := kernel.Addr().(*net.TCPAddr).Port
	g.listen(t, "0.0.0.0:80")
	greet(g.listen(t, "0.0.0.0:40000"), "server") // in no range of this guest

	h := startHost(t, "", g)
	h.awaitForward(t, "dev", 40000, "active", active)
	ephemeral := func(f status.Forward) bool {
		return f.State == status.Ignored && f.Reason == "ephemeral" && len(f.Host) == 0
	}
	h.awaitForward(t, "dev", port, "kept in", ephemeral)
	kept := 0
	for _, f := range h.vm(t, "dev").Forwards {
		if f.Proto == "udp" && ephemeral(f) {
			kept++
		}
	}
	if kept != clients {
		t.Errorf("%d of %d client sockets stay in the guest", kept, clients)
	}
	h.awaitForward(t, "dev", 80, "kept in", func(f status.Forward) bool {
		return f.State == status.Ignored && f.Reason == "below 1024: add a rule, guest = 80, host = 8080"
	})
	if !strings.Contains(statusRow(t, h, "dev", "80/tcp"), "add a rule, guest = 80, host = 8080") {
		t.Error("the table does not say what to do")
	}
	h.stop(t)

	h = startHostRules(t, g, "[auto_ports]\nrange = \"2000-9000\"\n[[ports]]\nguest = 80\nhost = 8080\n")
	h.awaitForward(t, "dev", port, "in the written range", active)
	h.awaitForward(t, "dev", 80, "named by a rule", active)
	if !answers(fmt.Sprintf("127.0.0.1:%d", port), "kernel") {
		t.Error("the port does not answer")
	}
	h.awaitForward(t, "dev", 40000, "outside the range", func(f status.Forward) bool {
		return f.State == status.Ignored && strings.HasPrefix(f.Reason, "not in the range of auto_ports")
	})
}
