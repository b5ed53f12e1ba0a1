package announce

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

var sampleListeners = []portlist.Listener{
	{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:80"), Process: "nginx[812]",
		Program: portlist.NewProgram("nginx -g daemon off;", "/srv/shop", "/root")},
	{Proto: "tcp", Addr: netip.MustParseAddrPort("[::]:80")},
	{Proto: "udp", Addr: netip.MustParseAddrPort("10.0.0.3:53"), Process: "dnsmasq[1]", Interface: "eth1"},
	{Proto: "udp", Addr: netip.MustParseAddrPort("[::]:40000"), Ephemeral: true, V6Only: true, Inode: 77},
}

// sampleSkipped are items of lists: of a protocol that a later version may know,
// and of none.
var sampleSkipped = []wire.SkippedItem{
	{Raw: "\x07\x04\x7f\x00\x00\x01\x00\x50", Reason: "a listener of unknown protocol 7"},
	{Raw: "", Reason: "a listener of no protocol"},
}

var sampleMessages = []wire.Message{
	&wire.SnapshotMessage{Generation: 7, Listeners: sampleListeners},
	&wire.SnapshotMessage{Generation: 1, Skipped: sampleSkipped},
	&wire.DeltaMessage{From: 7, To: 8, Removed: []portlist.Listener{{Proto: "tcp", Addr: sampleListeners[0].Addr}}, Added: sampleListeners[1:]},
	&wire.DeltaMessage{From: 8, To: 9, SkippedRemoved: sampleSkipped, SkippedAdded: sampleSkipped},
	&wire.ScanErrorMessage{Text: "open /proc/net/tcp: permission denied"},
}

// encoded is a message as decodeMessage takes it.
func encoded(m wire.Message) []byte { return wire.AppendMessage(nil, m)[4:] }

// nextMessage reads and decodes a message.
func nextMessage(r *wire.MessageReader) (wire.Message, error) {
	b, err := r.Next()
	if err != nil {
		return nil, err
	}
	return wire.DecodeMessage(b)
}

// FuzzAnnounced holds the host's copy of the guest's set to a simple model.
func FuzzAnnounced(f *testing.F) {
	var seed []byte
	for _, m := range sampleMessages {
		seed = wire.AppendMessage(seed, m)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.MessageReader{R: bytes.NewReader(b)}
		var a Copy
		type address struct {
			proto string
			addr  netip.AddrPort
		}
		model := make(map[address]portlist.Listener)
		add := func(ls []portlist.Listener) {
			for _, l := range ls {
				l.Inode = 0
				model[address{l.Proto, l.Addr}] = l
			}
		}
		for {
			m, err := nextMessage(&r)
			if err != nil {
				return
			}
			if _, err := a.Apply(m); err != nil {
				return
			}
			switch m := m.(type) {
			case *wire.SnapshotMessage:
				clear(model)
				add(m.Listeners)
			case *wire.DeltaMessage:
				for _, l := range m.Removed {
					delete(model, address{l.Proto, l.Addr})
				}
				add(m.Added)
			}
			now := a.Announcement()
			if len(now.Listeners) != len(model) {
				t.Fatalf("%d listeners, want %d", len(now.Listeners), len(model))
			}
			if len(now.Listeners) > wire.MaxListeners {
				t.Fatalf("%d listeners", len(now.Listeners))
			}
			for i := 1; i < len(now.Listeners); i++ {
				if portlist.Compare(now.Listeners[i-1], now.Listeners[i]) >= 0 {
					t.Fatal("not sorted, or one twice")
				}
			}
			for _, l := range now.Listeners {
				if model[address{l.Proto, l.Addr}] != l {
					t.Fatalf("%+v, want %+v", l, model[address{l.Proto, l.Addr}])
				}
			}
		}
	})
}
