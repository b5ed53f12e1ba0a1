package announce

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// told is the host's copy after messages that have gone over the wire.
func told(t *testing.T, messages ...wire.Message) *Copy {
	t.Helper()
	var a Copy
	for _, m := range messages {
		m, err := wire.DecodeMessage(encoded(m))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Apply(m); err != nil {
			t.Fatal(err)
		}
	}
	return &a
}

func TestAnUnusableItemIsSkippedAndCountedAndEndsNothing(t *testing.T) {
	web := portlist.Listener{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:8080")}
	for _, row := range []struct{ addr, why string }{
		{"239.255.255.250:1900", "a multicast address"},
		{"[ff02::fb]:5353", "a multicast address"},
		{"255.255.255.255:68", "a broadcast address"},
		{"0.0.0.0:0", "no port"},
		{"[::ffff:127.0.0.1]:80", "not an address"},
	} {
		bad := portlist.Listener{Proto: "udp", Addr: netip.MustParseAddrPort(row.addr), Process: "chrome[7]"}
		first := &wire.SnapshotMessage{Generation: 1, Listeners: []portlist.Listener{bad, web}}
		a := told(t, first).Announcement()
		if !slices.Equal(a.Listeners, []portlist.Listener{web}) || a.Skipped != 1 || !strings.Contains(a.SkipReason, row.why) {
			t.Errorf("%s: %+v", row.addr, a)
		}
		a = told(t, first, &wire.DeltaMessage{From: 1, To: 2, Removed: []portlist.Listener{bad}}).Announcement()
		if len(a.Listeners) != 1 || a.Skipped != 0 || a.SkipReason != "" {
			t.Errorf("%s is gone: %+v", row.addr, a)
		}
	}
	first := &wire.SnapshotMessage{Generation: 1, Listeners: []portlist.Listener{web}, Skipped: sampleSkipped}
	if a := told(t, first).Announcement(); len(a.Listeners) != 1 || a.Skipped != 2 {
		t.Errorf("of another version: %+v", a)
	}
	if a := told(t, first, &wire.DeltaMessage{From: 1, To: 2, SkippedRemoved: sampleSkipped}).Announcement(); a.Skipped != 0 {
		t.Errorf("of another version, gone: %+v", a)
	}
}

func TestALaterVersionMayAddToAListener(t *testing.T) {
	m := wire.AppendMessage(nil, &wire.SnapshotMessage{Generation: 1, Listeners: sampleListeners[1:2]})[4:]
	m = append(m, "more"...)
	// Behind the kind, the generation and the number of items.
	m[1+8+2+1] += byte(len("more")) // the length of the item
	got, err := wire.DecodeMessage(m)
	if err != nil {
		t.Fatal(err)
	}
	if s := got.(*wire.SnapshotMessage); len(s.Skipped) > 0 || !slices.Equal(s.Listeners, sampleListeners[1:2]) {
		t.Errorf("%+v", s)
	}
}
