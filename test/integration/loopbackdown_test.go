package integration

import (
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

func TestAGuestWhoseLoopbackIsDownHasNoActivePorts(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	greet(g.listen(t, "0.0.0.0:8080"), "hello")
	h.awaitForward(t, "dev", 8080, "active", active)
	g.do(t, func() error { return command("ip", "link", "set", "lo", "down") })
	eventually(t, "the port is withdrawn, and why", func() bool {
		vm := h.vm(t, "dev")
		return vm.State == status.Connected && len(vm.Forwards) == 0 && strings.Contains(vm.Error, "run: ip link set lo up")
	})
	g.do(t, func() error { return command("ip", "link", "set", "lo", "up") })
	h.awaitForward(t, "dev", 8080, "active", active)
	eventually(t, "nothing is wrong any more", func() bool { return h.vm(t, "dev").Error == "" })
	if !answers("127.0.0.1:8080", "hello") {
		t.Error("the port is not served again")
	}
}
