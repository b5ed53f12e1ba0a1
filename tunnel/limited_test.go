package tunnel_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// flood is what a program of a user opens: a socket on each of some ports, or on
// each of some addresses of one port.
func flood(uid uint32, firstPort, ports, addresses int) (all []portlist.Listener) {
	for p := range ports {
		for a := range addresses {
			ip := netip.AddrFrom4([4]byte{127, byte(1 + a>>8), byte(a), 1})
			all = append(all, portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(ip, uint16(firstPort+p)), UID: uid})
		}
	}
	return all
}

func TestOneUsersSocketsDoNotHideAnothersPort(t *testing.T) {
	web := portlist.Listener{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:8080"), UID: 1001}
	same := web
	same.UID = 1000
	ssh := web
	ssh.Addr = netip.MustParseAddrPort("0.0.0.0:2222")
	for name, row := range map[string]struct {
		flood []portlist.Listener
		web   portlist.Listener
	}{
		"on lower ports":                  {flood(1000, 1024, 4500, 1), web},
		"on many addresses of a port":     {flood(1000, 7000, 1, 4500), web},
		"of the same user on one port":    {flood(1000, 7000, 1, 4500), same},
		"as many users as can be counted": {usersFlood(100_000, 4000, 2), web},
		"a user with numbers to spare":    {append(usersFlood(100_000, 5000, 1), ssh), web},
	} {
		t.Run(name, func(t *testing.T) {
			g := startGuest(t, stream.PathRaw, tunnel.Config{})
			heard := announcements(t, g)
			g.source.set(announce.Announcement{Generation: 1, Listeners: sorted(row.flood)})
			first := awaitGeneration(t, heard, 1)
			if len(first.Listeners) != wire.MaxListeners {
				t.Fatalf("%d listeners", len(first.Listeners))
			}
			g.source.set(announce.Announcement{Generation: 2, Listeners: sorted(append(row.flood, row.web))})
			second := awaitGeneration(t, heard, 2)
			has := func(all []portlist.Listener, l portlist.Listener) bool {
				return slices.ContainsFunc(all, func(o portlist.Listener) bool { return o.Proto == l.Proto && o.Addr == l.Addr })
			}
			if !has(second.Listeners, row.web) {
				t.Error("the other port is hidden")
			}
			gone := 0
			for _, l := range first.Listeners {
				if !has(second.Listeners, l) {
					gone++
				}
			}
			if gone != 1 {
				t.Errorf("%d of what was announced went, to make room for one", gone)
			}
			if second.ScanError == "" {
				t.Error("that some are left out is not said")
			}
		})
	}
}

// usersFlood is what a container does that has user numbers of its own.
func usersFlood(first uint32, users, each int) (all []portlist.Listener) {
	for u := range users {
		all = append(all, flood(first+uint32(u), 10000+u*each, each, 1)...)
	}
	return all
}

// sorted is a set as a scan returns it.
func sorted(all []portlist.Listener) []portlist.Listener {
	return slices.SortedFunc(slices.Values(all), func(a, b portlist.Listener) int {
		if a.Addr.Port() != b.Addr.Port() {
			return int(a.Addr.Port()) - int(b.Addr.Port())
		}
		return a.Addr.Addr().Compare(b.Addr.Addr())
	})
}
