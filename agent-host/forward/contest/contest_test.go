package contest_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward/contest"
	"github.com/rum-vm/rum-agent/agent-host/forward/host"
)

func at(addr string) host.Addr {
	return host.Addr{Proto: "tcp", Addr: netip.MustParseAddrPort(addr)}
}

func TestAllAddressesExcludeEachOfTheirFamilyAndPort(t *testing.T) {
	c := contest.New[string]()
	c.Take(at("127.0.0.1:80"), "one")
	c.Take(at("[::]:80"), "six")
	for addr, want := range map[string]string{
		"127.0.0.1:80": "one", "0.0.0.0:80": "one", "127.0.0.2:80": "", "[::1]:80": "six", "127.0.0.1:81": "",
	} {
		if got := c.Opponent(at(addr)); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	udp := at("127.0.0.1:80")
	udp.Proto = "udp"
	if got := c.Opponent(udp); got != "" {
		t.Errorf("udp: %q", got)
	}
	if had := c.Give(at("127.0.0.1:80")); had != "one" || c.Opponent(at("0.0.0.0:80")) != "" || len(c.Held(at("[::]:80").Spot())) != 1 {
		t.Errorf("given up by %q, and held %v", had, c.Held(at("[::]:80").Spot()))
	}
}

func TestWhoWaitsLongestIsFirst(t *testing.T) {
	c := contest.New[string]()
	s := []host.Spot{at("127.0.0.1:80").Spot()}
	for _, b := range []string{"a", "b", "c"} {
		c.Wait(b, s)
	}
	c.Leave("b", s)
	c.Leave("nobody", s)
	if got := c.Waiting(s[0]); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("%q", got)
	}
}

func TestOnlyWhatTheHostMayLoseIsLosable(t *testing.T) {
	c := contest.New[string]()
	for _, a := range []string{"127.0.0.1:80", "[::1]:80", "[::1]:81", "0.0.0.0:82"} {
		c.Take(at(a), a)
	}
	c.Give(at("[::1]:80"))
	if got := c.Losable(); !slices.Equal(got, []netip.Addr{netip.IPv6Loopback()}) {
		t.Errorf("%v", got)
	}
	if c.Give(at("[::1]:81")); len(c.Losable()) != 0 {
		t.Errorf("%v, of which nothing is held", c.Losable())
	}
}
