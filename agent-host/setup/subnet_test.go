package setup

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

func uses(prefixes ...string) []use {
	var all []use
	for _, p := range prefixes {
		all = append(all, use{netip.MustParsePrefix(p), "the route " + p})
	}
	return all
}

func TestAnOverlappingSubnetIsRefusedWithAFreeOne(t *testing.T) {
	tests := []struct {
		name, subnet string
		uses         []use
		free         string // "" when the subnet itself is free
	}{
		{"nothing in use", "192.168.50.0/24", nil, ""},
		{"neighbours do not matter", "192.168.50.0/24", uses("192.168.49.0/24", "192.168.51.0/24"), ""},
		{"the same", "192.168.50.0/24", uses("192.168.50.0/24"), "192.168.51.0/24"},
		{"a larger one around it", "192.168.50.0/24", uses("192.168.48.0/22"), "192.168.52.0/24"},
		{"a smaller one inside", "192.168.50.0/24", uses("192.168.50.128/30", "192.168.51.5/32"), "192.168.52.0/24"},
		{"the end of the range wraps", "192.168.255.0/24", uses("192.168.255.0/24"), "192.168.0.0/24"},
		{"a VPN over all of 192.168", "192.168.50.0/24", uses("192.168.0.0/16"), "172.16.0.0/24"},
		{"and 172.16", "192.168.50.0/24", uses("192.168.0.0/16", "172.16.0.0/12"), "10.0.0.0/24"},
		{"not private at all", "198.51.100.0/24", uses("198.51.100.0/25"), "192.168.0.0/24"},
		{"a size of its own", "10.20.0.0/20", uses("10.20.15.0/24"), "10.20.16.0/20"},
		{"everything", "192.168.50.0/24", uses("192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8"), "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := checkSubnet(netip.MustParsePrefix(tt.subnet), tt.uses)
			switch tt.free {
			case "":
				if err != nil {
					t.Error(err)
				}
				return
			case "none":
				if err == nil || !strings.Contains(libvirt.Hint(err), "no private subnet") {
					t.Error(err)
				}
			default:
				if err == nil || !strings.Contains(libvirt.Hint(err), tt.free+" is free") {
					t.Error(err)
				}
			}
			if !errors.Is(err, ErrSubnetTaken) {
				t.Errorf("%v is not ErrSubnetTaken", err)
			}
		})
	}
}

func TestRoutesOfTheKernelAreRead(t *testing.T) {
	want, err := exec.Command("ip", "-4", "route", "show", "table", "all", "type", "unicast").Output()
	if err != nil {
		t.Fatalf("%v: run 'apt-get install iproute2'", err)
	}
	routes, err := hostRoutes()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if !strings.Contains(string(want), r.prefix.Addr().String()) {
			t.Errorf("ip does not know %s:\n%s", r.by, want)
		}
	}
	for line := range strings.Lines(string(want)) {
		prefix, err := netip.ParsePrefix(strings.Fields(line)[0])
		if err != nil {
			continue // default, or a single host
		}
		if _, ok := overlapping(prefix, routes); !ok {
			t.Errorf("not found: %s", line)
		}
	}
}
