package tunnel_test

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func listener(addr string) portlist.Listener {
	return portlist.Listener{Proto: "tcp", Addr: netip.MustParseAddrPort(addr)}
}

func TestTheHostAlwaysHasTheWholeSet(t *testing.T) {
	g := startGuest(t, stream.PathRaw, tunnel.Config{})
	web, db := listener("0.0.0.0:8080"), listener("127.0.0.1:5432")
	owned := db
	owned.Process = "postgres[7]"
	heard := announcements(t, g)
	for i, set := range [][]portlist.Listener{{web}, {web, db}, {web, owned}, {db}, {}, {web}} {
		slices.SortFunc(set, func(a, b portlist.Listener) int { return a.Addr.Compare(b.Addr) })
		g.source.set(announce.Announcement{Generation: uint64(i + 1), Listeners: set})
		got := awaitGeneration(t, heard, uint64(i+1))
		if d := cmp.Diff(set, got.Listeners, cmpopts.EquateComparable(netip.AddrPort{}, portlist.Program{}), equateEmpty); d != "" {
			t.Fatalf("generation %d: %s", i+1, d)
		}
	}
	// A second host gets all of it at once.
	if got := awaitGeneration(t, announcements(t, g), 6); len(got.Listeners) != 1 {
		t.Fatalf("a new link got %v", got.Listeners)
	}
}

// Any user of the host could be at the other end.
func TestWithoutAKeyNothingIsToldOfProgramsButTheirNames(t *testing.T) {
	web := listener("0.0.0.0:8080")
	web.Process = "node[9]"
	web.Program = portlist.NewProgram("node --password=x", "/srv/shop", "/root")
	for _, key := range [][]byte{nil, bytes.Repeat([]byte{7}, keyfile.Size)} {
		g := startGuest(t, stream.PathRaw, tunnel.Config{Key: key})
		g.source.set(announce.Announcement{Generation: 1, Listeners: []portlist.Listener{web}})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		l, err := tunnel.Dial(ctx, g.endpoint, tunnel.Config{Key: key, Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan announce.Announcement, 16)
		run(t, l, func(a announce.Announcement) { heard <- a })
		got := awaitGeneration(t, heard, 1).Listeners[0]
		if told := got.Program == web.Program; got.Process != web.Process || told != (key != nil) || !told && got.Program != (portlist.Program{}) {
			t.Errorf("key %v: %s, the program is told: %v", key != nil, got.Process, told)
		}
	}
}

var equateEmpty = cmp.Transformer("all", func(ls []portlist.Listener) map[portlist.Listener]bool {
	all := make(map[portlist.Listener]bool)
	for _, l := range ls {
		all[l] = true
	}
	return all
})

func TestAFailedScanClosesNothing(t *testing.T) {
	g := startGuest(t, stream.PathRaw, tunnel.Config{})
	heard := announcements(t, g)
	g.source.set(announce.Announcement{ScanError: "not yet"})
	if a := await(t, heard, func(a announce.Announcement) bool { return a.ScanError == "not yet" }); a.Generation != 0 {
		t.Fatalf("generation %d before the first scan", a.Generation)
	}
	set := []portlist.Listener{listener("0.0.0.0:80")}
	g.source.set(announce.Announcement{Generation: 1, Listeners: set})
	awaitGeneration(t, heard, 1)
	g.source.set(announce.Announcement{Generation: 1, Listeners: set, ScanError: "permission denied"})
	a := await(t, heard, func(a announce.Announcement) bool { return a.ScanError != "" })
	if len(a.Listeners) != 1 {
		t.Fatalf("a failed scan left %v", a.Listeners)
	}
	g.source.set(announce.Announcement{Generation: 1, Listeners: set})
	await(t, heard, func(a announce.Announcement) bool { return a.ScanError == "" })
}

func TestTooManyListenersAreCutAndSaid(t *testing.T) {
	g := startGuest(t, stream.PathRaw, tunnel.Config{})
	var set []portlist.Listener
	for i := range wire.MaxListeners + 10 {
		set = append(set, portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(i+1))})
	}
	heard := announcements(t, g)
	g.source.set(announce.Announcement{Generation: 1, Listeners: set})
	a := await(t, heard, func(a announce.Announcement) bool { return a.ScanError != "" })
	if len(a.Listeners) != wire.MaxListeners {
		t.Fatalf("%d listeners", len(a.Listeners))
	}
}

// announcements runs a link and returns what it is told.
func announcements(t *testing.T, g *guest) <-chan announce.Announcement {
	t.Helper()
	l, err := dialLink(t, g.endpoint, tunnel.Config{})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan announce.Announcement, 100)
	run(t, l, func(a announce.Announcement) { heard <- a })
	return heard
}

func awaitGeneration(t *testing.T, heard <-chan announce.Announcement, n uint64) announce.Announcement {
	t.Helper()
	return await(t, heard, func(a announce.Announcement) bool { return a.Generation == n })
}

func await(t *testing.T, heard <-chan announce.Announcement, ok func(announce.Announcement) bool) announce.Announcement {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case a := <-heard:
			if ok(a) {
				return a
			}
		case <-timeout:
			t.Fatal("no such announcement")
		}
	}
}
