package integration

import (
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// TestAHostWhoseNetworkGoesAwayIsBackWhenThatIs is a laptop that sleeps, or that changes networks: nothing says that the connection has
// ended but the keep-alives of ssh on both sides, which are made short here.
func TestAHostWhoseNetworkGoesAwayIsBackWhenThatIs(t *testing.T) {
	for name, cut := range map[string]struct{ away, back []string }{
		"its link goes down":      {[]string{"link", "set", "rum0", "down"}, []string{"link", "set", "rum0", "up"}},
		"its address goes away":   {[]string{"addr", "del", "192.0.2.1/24", "dev", "rum0"}, []string{"addr", "add", "192.0.2.1/24", "dev", "rum0"}},
		"its packets are dropped": {[]string{"route", "add", "blackhole", "192.0.2.2/32"}, []string{"route", "del", "blackhole", "192.0.2.2/32"}},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			at := ns.joined(t)
			r := newRemoteHostAt(t, at, func(start func() error) { ns.do(t, start) }, "-o ServerAliveInterval=1 -o ServerAliveCountMax=2 -o ConnectTimeout=2")
			g := newGuest(t, "dev")
			r.add(t, g)
			k := newKilled(t, g, 8080)
			k.host = r.serve(t)
			k.host.awaitForward(t, "server/dev", 8080, "active", active)
			downloads, _ := k.transfers(t)

			cutAt := time.Now()
			if err := command("ip", cut.away...); err != nil {
				t.Fatal(err)
			}
			k.host.awaitError(t, "ssh: connect to host "+at) // and so it has ended, and was tried again
			t.Logf("given up after %v", time.Since(cutAt))
			k.wantResets(t, downloads)

			backAt := time.Now()
			if err := command("ip", cut.back...); err != nil {
				t.Fatal(err)
			}
			k.host.awaitLinks(t, 1)
			t.Logf("back after %v", time.Since(backAt))
			k.host.awaitForward(t, "server/dev", 8080, "active", active)
			k.transfers(t)
			eventually(t, "the relay of before to end", func() bool { return len(r.relays(t)) == 1 })
			if d := k.host.discovered(t); d.State != status.Connected || d.Error != "" {
				t.Errorf("the host is %s: %s", d.State, d.Error)
			}
		})
	}
}
