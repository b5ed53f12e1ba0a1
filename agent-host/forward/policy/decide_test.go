package policy_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func on(iface string, addrs ...string) (all []portlist.Listener) {
	for _, a := range addrs {
		all = append(all, portlist.Listener{Proto: "tcp", Addr: netip.MustParseAddrPort(a), Interface: iface})
	}
	return all
}

func decide(announced []portlist.Listener, r policy.Reach) policy.Wanted {
	return policy.New(nil, nil, nil, nil).Decide("dev", policy.Ports{All: true}, announced, nil, r, func() {})
}

// A service that comes to a port has all of its places; before that a static rule opens its own.
func TestAStaticRuleOpensItsOwnPlaceOfAPortAlone(t *testing.T) {
	at := func(port uint16, static bool) policy.Decision {
		return policy.Decision{Static: static, Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}}
	}
	for _, row := range []struct {
		first, second bool
		want          []uint16
	}{{true, false, []uint16{8099}}, {false, true, []uint16{8100}}, {true, true, []uint16{8099, 8100}}} {
		rules := func(string, portlist.Listener) policy.Decision {
			d := at(8099, row.first)
			d.Also = []policy.Decision{at(8100, row.second)}
			return d
		}
		p := policy.New(rules, func(string) []portlist.Listener { return on("", "0.0.0.0:3000") }, nil, nil)
		places := func(announced ...portlist.Listener) (got []uint16) {
			w := p.Decide("dev", policy.Ports{All: true}, append([]portlist.Listener{}, announced...), nil, policy.Reach{}, func() {})
			for _, k := range w.Order {
				got = append(got, w.Groups[k].Decision.Host[0].Port())
			}
			slices.Sort(got)
			return got
		}
		if got := places(); !slices.Equal(got, row.want) {
			t.Errorf("%+v, and nothing listens: open at %v, want %v", row, got, row.want)
		}
		if got := places(on("", "10.0.0.5:3000")...); !slices.Equal(got, []uint16{8099, 8100}) {
			t.Errorf("%+v, and a service listens: open at %v", row, got)
		}
	}
}

// What is localhost comes first, so that it has the port of the host.
func TestListenersAtLocalhostAreOneForwardAndEachOtherAddressIsItsOwn(t *testing.T) {
	w := decide(on("", "10.0.0.5:8080", "0.0.0.0:8080", "[::]:8080", "127.0.0.1:8080", "[::1]:8080", "127.0.0.1:9090"), policy.Reach{})
	var got []string
	for _, k := range w.Order {
		for _, l := range w.Groups[k].Guest {
			got = append(got, l.Addr.String())
		}
		got = append(got, "")
	}
	want := []string{"0.0.0.0:8080", "[::]:8080", "127.0.0.1:8080", "[::1]:8080", "", "127.0.0.1:9090", "", "10.0.0.5:8080", ""}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestWhatNothingReachesStaysInTheGuestAndSaysWhy(t *testing.T) {
	bridge := netip.MustParseAddr("192.168.50.7")
	for _, row := range []struct {
		name  string
		guest []portlist.Listener
		reach policy.Reach
		stays bool
	}{
		{"bound to an interface, no bridge", on("eth0", "0.0.0.0:80"), policy.Reach{}, true},
		{"bound to an interface that the bridge reaches", on("eth0", "0.0.0.0:80"), policy.Reach{Bridge: bridge}, false},
		{"at localhost, and the link is lost", on("", "127.0.0.1:80"), policy.Reach{Bridge: bridge, Gone: true}, true},
		{"at localhost, and the link may come back", on("", "127.0.0.1:80"), policy.Reach{Bridge: bridge}, false},
		{"everywhere, and the link is lost", on("", "0.0.0.0:80"), policy.Reach{Bridge: bridge, Gone: true}, false},
	} {
		w := decide(row.guest, row.reach)
		d := w.Groups[w.Order[0]].Decision
		if stays := d.Verdict == status.Ignored; stays != row.stays || stays != (d.Reason != "") {
			t.Errorf("%s: %+v", row.name, d)
		}
	}
}
