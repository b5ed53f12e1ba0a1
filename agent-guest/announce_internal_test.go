package guestagent

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/nat"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func TestTranslatedPortsAreAnnouncedAtAnAddressThatLeadsThere(t *testing.T) {
	own := []netip.Prefix{
		netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("172.17.0.1/16"),
		netip.MustParsePrefix("192.168.122.5/24"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("fd00::5/64"),
	}
	published := func(all []nat.Translation, listening []portlist.Listener) []portlist.Listener {
		o := others{taken: make(map[listenerPort]bool)}
		o.take(listening)
		o.publish(all, own)
		return o.all
	}
	listening := []portlist.Listener{{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:8081")}}
	to, to6 := netip.MustParseAddrPort("172.17.0.2:80"), netip.MustParseAddrPort("[fd11::2]:80")
	for _, test := range []struct {
		t    nat.Translation
		want []string
	}{
		{nat.Translation{Proto: "tcp", First: 8080, Last: 8080, To: to}, []string{"tcp 192.168.122.5:8080 dnat to 172.17.0.2:80"}},
		{nat.Translation{Proto: "tcp", First: 8080, Last: 8080, To: to6}, []string{"tcp [fd00::5]:8080 dnat to [fd11::2]:80"}},
		{nat.Translation{Proto: "udp", First: 8081, Last: 8082, To: netip.AddrPortFrom(to.Addr(), 0)},
			[]string{"udp 192.168.122.5:8081 dnat to 172.17.0.2:8081", "udp 192.168.122.5:8082 dnat to 172.17.0.2:8082"}},
		// Something listens there; a whole network's ports; an address that is not this machine's, or only in it.
		{nat.Translation{Proto: "tcp", First: 8081, Last: 8081, To: to}, nil},
		{nat.Translation{Proto: "tcp", First: 1, Last: 65535, To: to}, nil},
		{nat.Translation{Proto: "tcp", First: 443, Last: 443, Addr: netip.MustParseAddr("10.96.0.1"), To: to}, nil},
		{nat.Translation{Proto: "tcp", First: 90, Last: 90, Addr: netip.MustParseAddr("127.0.0.1"), To: to}, []string{"tcp 127.0.0.1:90 dnat to 172.17.0.2:80"}},
		{nat.Translation{Proto: "tcp", First: 91, Last: 91, Addr: netip.MustParseAddr("172.17.0.1"), To: to}, []string{"tcp 172.17.0.1:91 dnat to 172.17.0.2:80"}},
	} {
		var got []string
		for _, l := range published([]nat.Translation{test.t, test.t}, listening) {
			got = append(got, fmt.Sprint(l.Proto, " ", l.Addr, " ", l.Process))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%+v: %q, want %q", test.t, got, test.want)
		}
	}
	many := make([]nat.Translation, 0, 2000)
	for i := range 2000 {
		many = append(many, nat.Translation{Proto: "tcp", First: uint16(20000 + i), Last: uint16(20000 + i), To: to})
	}
	if n := len(published(many, nil)); n != maxTranslated {
		t.Errorf("%d ports are announced, want %d", n, maxTranslated)
	}
}

// TestOfContainersOnlyWhatIsAnnouncedIsConnectedTo: the rest of the network that they are
// on is nobody's business on the host.
func TestOfContainersOnlyWhatIsAnnouncedIsConnectedTo(t *testing.T) {
	at := netip.MustParseAddrPort
	a := &announcer{changed: make(chan struct{}), contained: []portlist.Listener{
		{Proto: "tcp", Addr: at("10.4.0.2:80")}, {Proto: "tcp", Addr: at("10.4.0.2:81")},
	}}
	a.update(portwatch.State{Generation: 1, Listeners: []portlist.Listener{{Proto: "tcp", Addr: at("0.0.0.0:81")}}})
	for addr, want := range map[string]bool{"10.4.0.2:80": true, "10.4.0.2:81": false, "10.4.0.2:82": false, "10.4.0.3:80": false} {
		if got := a.contains(at(addr)); got != want {
			t.Errorf("%s may be connected to: %v, want %v", addr, got, want)
		}
	}
}
