package integration

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// A rule with on_conflict = "next" finds its host port taken, and is at the next free one.
func TestARuleIsAtTheNextFreePortWhereItsOwnIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:7871")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	g := newGuest(t, "dev")
	greet(g.listen(t, "0.0.0.0:7870"), "guest")
	h := startHostRules(t, g, "[[ports]]\nguest = 7870\nhost = 7871\nlabel = \"shop\"\non_conflict = \"next\"\n")
	f := h.awaitForward(t, "dev", 7870, "active, and says why it is elsewhere", func(f status.Forward) bool {
		return active(f) && strings.Contains(f.Reason, "127.0.0.1:7871 was held by ") && strings.Contains(f.Reason, "took the next free port")
	})
	at := netip.MustParseAddrPort(f.Host[0])
	if at.Port() <= 7871 || f.Label != "shop" || !slices.Contains(f.InsteadOf, "127.0.0.1:7871") || !answers(at.String(), "guest") {
		t.Errorf("%+v", f)
	}
	for _, e := range h.explain(t, "7871") {
		if e.Port != 7870 || !e.Works {
			t.Errorf("%+v", e)
		}
	}
}
