//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// The test guest mounts what a distribution does.
func TestADistributionsKernelTellsOfEachSocket(t *testing.T) {
	ctx := testContext(t)
	port := freePort(t)
	stop := serveInGuest(t, ctx, port, "hello")
	eventually(t, "forwarded", forwarded(ctx, port))
	out := inGuest(t, ctx, "rum-guest-agent ports --json")
	if !strings.Contains(out, `"source": "ebpf"`) {
		t.Errorf("kernel %s: the source is not eBPF:\n%s", inGuest(t, ctx, "uname -r"), out)
	}
	stop()
	eventually(t, "gone", gone(ctx, port))
	if console := fmt.Sprint(guest.Console()); !strings.Contains(console, `tcp=ebpf udp=ebpf`) {
		t.Errorf("the agent does not say that it uses eBPF for both protocols:\n%s", console)
	}
}
