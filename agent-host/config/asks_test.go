package config_test

import (
	"net/netip"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch"
)

func TestAProcessIsAskedForOnlyWhereItDecides(t *testing.T) {
	rules := parse(t, `
[[forward]]
guest = 8080
host = 80

[[forward]]
guest = "8000-9000"
process = "postgres"
ignore = true

[[forward]]
guest = 8500
host = 8500
`).Rules
	for _, row := range []struct {
		port uint16
		asks bool
	}{{8080, false}, {8081, true}, {8500, true}, {9001, false}, {22, false}} {
		l := portwatch.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), row.port)}
		if got := rules.AsksProcess("dev", l); got != row.asks {
			t.Errorf("port %d: %v", row.port, got)
		}
	}
}
