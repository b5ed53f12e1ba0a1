package integration

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// As with exec:docker exec ... into a container with the host's network.
func TestAgentsInOneNetworkDoNotForwardTheirOwnListeners(t *testing.T) {
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	g := &guestVM{namespace: &namespace{file: file}, name: "dev", socket: filepath.Join(t.TempDir(), "dev.sock")}
	g.startAgent(t)
	h := startHost(t, "", g)
	greet(g.listen(t, "127.0.0.2:7900"), "server")
	echoUDP(g.listenUDP(t, "127.0.0.2:7900"))
	h.awaitForward(t, "dev", 7900, "active", active)
	h.udpForward(t, "dev", 7900, active)
	for range 20 {
		if !answers("127.0.0.1:7900", "server") || !answers("[::1]:7900", "server") {
			t.Fatal("the server does not answer")
		}
	}
	// A later port shows that the agent has looked again since.
	greet(g.listen(t, "127.0.0.2:7901"), "later")
	h.awaitForward(t, "dev", 7901, "active", active)
	for _, f := range h.vm(t, "dev").Forwards {
		if f.Port == 7900 && !slices.Equal(f.Guest, []string{"127.0.0.2:7900"}) {
			t.Errorf("a listener of ours is forwarded: %+v", f)
		}
		if f.State == status.Claim {
			t.Errorf("%+v", f)
		}
	}
	if n := h.descriptors(t); n > 200 {
		t.Errorf("the host agent has %d descriptors", n)
	}
}
