package wire_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"
	"testing/iotest"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

var sampleDatagrams = []wire.DatagramFrame{
	{Kind: wire.DatagramToGuest, Flow: 1, Target: netip.MustParseAddrPort("127.0.0.1:53"), Payload: []byte("question")},
	{Kind: wire.DatagramToGuest, Flow: 1<<32 - 1, Target: netip.MustParseAddrPort("[::1]:53")},
	{Kind: wire.DatagramToHost, Flow: 2, Payload: make([]byte, wire.MaxDatagram)},
	{Kind: wire.DatagramToHost, Flow: 2},
	{Kind: wire.DatagramEnd, Flow: 3},
	{Kind: wire.DatagramTrouble, Flow: 4, Lost: 7, Reason: "nothing receives"},
}

func equalFrames(a, b wire.DatagramFrame) bool {
	return a.Kind == b.Kind && a.Flow == b.Flow && a.Target == b.Target && bytes.Equal(a.Payload, b.Payload) &&
		a.Lost == b.Lost && a.Reason == b.Reason
}

func TestDatagramFramesSurviveTheWire(t *testing.T) {
	var encoded []byte
	for _, f := range sampleDatagrams {
		encoded = f.Append(encoded)
	}
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(encoded), "byte by byte": iotest.OneByteReader(bytes.NewReader(encoded))} {
		d := wire.NewDatagramReader(r)
		for i, want := range sampleDatagrams {
			if got, err := d.Next(); err != nil || !equalFrames(got, want) {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
		}
		if _, err := d.Next(); err != io.EOF {
			t.Fatalf("%s: at the end: %v", name, err)
		}
	}
	d := wire.NewDatagramReader(bytes.NewReader(encoded[:len(encoded)-1]))
	for range len(sampleDatagrams) - 1 {
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a frame that is cut short: %v", err)
	}
}

func FuzzDatagramFrames(f *testing.F) {
	for _, s := range sampleDatagrams {
		f.Add(s.Append(nil))
	}
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 2, 16, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := wire.NewDatagramReader(bytes.NewReader(b))
		for {
			got, err := d.Next()
			if err != nil {
				return
			}
			if len(got.Payload) > wire.MaxDatagram || len(got.Reason) > wire.MaxReason {
				t.Fatalf("%d bytes of payload, %d of reason got through", len(got.Payload), len(got.Reason))
			}
			again, err := wire.NewDatagramReader(bytes.NewReader(got.Append(nil))).Next()
			if err != nil || !equalFrames(got, again) {
				t.Fatalf("%+v became %+v, %v", got, again, err)
			}
		}
	})
}
