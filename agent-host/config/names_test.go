package config_test

import (
	"net/netip"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

func TestRulesNamePortsOfTheHost(t *testing.T) {
	c, err := config.Parse("rum.toml", []byte(`
[[forward]]
guest = "4000-4009"
host = "14000-14009"
vm = "dev"
[[forward]]
guest = 5000
host_ip = "*"
proto = "udp"
[[forward]]
guest_socket = "/run/app.sock"
host = 6000
[[forward]]
guest = 7000
ignore = true
[[forward]]
guest = 7001
reverse = true
[[forward]]
host_ip = "localhost"
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		vm, proto, at string
		last          uint16
	}{
		{"dev", "tcp", "127.0.0.1:14003", 14009},
		{"dev", "tcp", "[::1]:14009", 14009},
		{"dev", "tcp", "127.0.0.2:14003", 0},
		{"dev", "tcp", "0.0.0.0:14003", 14009},
		{"dev", "tcp", "127.0.0.1:14010", 0},
		{"web", "tcp", "127.0.0.1:14003", 0},
		{"web", "udp", "127.0.0.9:5000", 5000},
		{"web", "tcp", "127.0.0.9:5000", 0},
		{"web", "tcp", "127.0.0.1:6000", 6000},
		{"web", "tcp", "127.0.0.1:7000", 0},
		{"web", "tcp", "127.0.0.1:7001", 0},
	} {
		if got := c.Rules.Names(row.vm, row.proto, netip.MustParseAddrPort(row.at)); got != row.last {
			t.Errorf("%+v: %d", row, got)
		}
	}
}
