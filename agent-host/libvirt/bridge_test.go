package libvirt

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestBridgeIPIsTheNewestHostOnlyLease(t *testing.T) {
	const nat, only = "52:54:00:00:00:01", "52:54:00:00:00:02"
	nics := []NIC{{nat, "default"}, {only, "rum-hostonly"}}
	leases := []address{
		{only, ip("192.168.50.101"), 1000},
		{only, ip("192.168.50.102"), 2000},
		{"52:54:00:00:00:99", ip("192.168.50.103"), 3000},
	}
	reported := []address{{nat, ip("192.168.122.7"), 0}, {only, ip("192.168.50.110"), 0}}
	tests := []struct {
		name             string
		nics             []NIC
		hostOnly         string
		leases, reported []address
		want             string
	}{
		{"newest lease", nics, "rum-hostonly", leases, reported, "192.168.50.102"},
		{"no lease: host-only NIC as reported", nics, "rum-hostonly", nil, reported, "192.168.50.110"},
		{"no host-only Network: first NIC as reported", nics, "", nil, reported, "192.168.122.7"},
		{"no host-only NIC", nics[:1], "rum-hostonly", leases, reported, "192.168.122.7"},
		{"nothing known", nics, "rum-hostonly", nil, nil, ""},
		{"no NIC", nil, "rum-hostonly", leases, reported, ""},
		{"an address off the host's subnets is not taken", nics, "rum-hostonly",
			[]address{{only, ip("8.8.8.8"), 9000}, {only, ip("192.168.50.101"), 1000}}, nil, "192.168.50.101"},
		{"nor the host's own", nics, "rum-hostonly", []address{{only, ip("192.168.50.1"), 9000}}, nil, ""},
		{"IPv4 before IPv6", nics, "rum-hostonly",
			[]address{{only, ip("fd00::5"), 9000}, {only, ip("192.168.50.101"), 1000}}, nil, "192.168.50.101"},
		{"IPv6 alone", nics, "rum-hostonly", []address{{only, ip("fd00::5"), 9000}}, nil, "fd00::5"},
		{"a NIC without MAC owns nothing", []NIC{{"", "rum-hostonly"}}, "rum-hostonly", []address{{"", ip("192.168.50.101"), 1}}, nil, ""},
	}
	onLink := func(a netip.Addr) bool {
		return a != ip("192.168.50.1") && (netip.MustParsePrefix("192.168.0.0/16").Contains(a) || netip.MustParsePrefix("fd00::/64").Contains(a))
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := bridgeIP(tt.nics, tt.hostOnly, tt.leases, tt.reported, onLink)
			if got.IsValid() != (tt.want != "") || got.IsValid() && got.String() != tt.want {
				t.Errorf("got %v, want %q", got, tt.want)
			}
		})
	}
}

func TestNeighboursAreThoseWithAnAddress(t *testing.T) {
	const table = `IP address       HW type     Flags       HW address            Mask     Device
192.168.122.45   0x1         0x2         52:54:00:8A:31:5e     *        virbr0
192.168.50.9     0x1         0x0         00:00:00:00:00:00     *        virbr1
10.0.0.1         0x1         0x6         02:42:ac:11:00:02     *        eth0
broken
`
	want := []address{{"52:54:00:8a:31:5e", ip("192.168.122.45"), 0}, {"02:42:ac:11:00:02", ip("10.0.0.1"), 0}}
	got := neighbours(strings.NewReader(table))
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(address{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestOwnAddressesAreNotOnLink(t *testing.T) {
	if onLink()(ip("127.0.0.1")) || onLink()(ip("203.0.113.7")) {
		t.Error("loopback and strangers are no neighbours")
	}
}
