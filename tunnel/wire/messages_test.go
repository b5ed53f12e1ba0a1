package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
	&wire.HelloMessage{AgentVersion: "v1.2.3", Hostname: "dev", BootID: "6f1c"},
	&wire.HelloMessage{AgentVersion: "v1.2.3", Arch: "arm64", Packager: "dpkg"},
	&wire.SnapshotMessage{Generation: 7, Listeners: sampleListeners},
	&wire.SnapshotMessage{Generation: 1},
	&wire.SnapshotMessage{Generation: 1, Skipped: sampleSkipped},
	&wire.DeltaMessage{From: 7, To: 8, Removed: []portlist.Listener{{Proto: "tcp", Addr: sampleListeners[0].Addr}}, Added: sampleListeners[1:]},
	&wire.DeltaMessage{From: 8, To: 9, SkippedRemoved: sampleSkipped, SkippedAdded: sampleSkipped},
	&wire.ScanErrorMessage{Text: "open /proc/net/tcp: permission denied"},
	&wire.PingMessage{Seq: 3},
	&wire.PongMessage{Seq: 3},
	&wire.PongMessage{Seq: 4, Now: 1790000000_000000000},
	&wire.PongMessage{Seq: 5, Now: math.MinInt64},
	&wire.EndMessage{ID: 9, Kind: wire.EndComplete, Sent: 1 << 40},
	&wire.ReverseMessage{Listeners: []wire.ReverseSpec{
		{ID: 1, Listen: wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}}},
		{ID: 2, Listen: wire.UnixTarget("/run/app.sock")},
	}},
	&wire.PortStatesMessage{Ports: []wire.PortState{{Proto: "tcp", Port: 80, Outcome: wire.PortForwarded, Host: 8080}, {Proto: "udp", Port: 53, Outcome: wire.PortKept}, {Proto: "tcp", Port: 81, Outcome: wire.PortReleased, Host: 81}}},
	&wire.ReverseStateMessage{ID: 2, State: wire.ReverseInUse, Reason: "address already in use"},
	&wire.OpenURLMessage{ID: 1, URL: "https://example.com/\x00\xff?a=b", Proof: []byte("proof")},
	&wire.OpenURLMessage{ID: 2, URL: strings.Repeat("u", wire.MaxURL)},
	&wire.OpenURLMessage{ID: 3, URL: "https://example.com/", Proof: []byte("proof"), User: 1000},
	&wire.OpenURLAnswerMessage{ID: 1, Outcome: wire.OpenRefused, Reason: "no display"},
	&wire.OpenURLAnswerMessage{ID: 2, Outcome: 99},
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

func FuzzControlMessage(f *testing.F) {
	for _, m := range sampleMessages {
		f.Add(encoded(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.DecodeMessage(b)
		if err != nil {
			return
		}
		again, err := wire.DecodeMessage(encoded(m))
		if err != nil {
			t.Fatalf("what was decoded does not encode to something decodable: %v", err)
		}
		if d := cmp.Diff(m, again, cmpopts.EquateComparable(netip.AddrPort{}, portlist.Program{})); d != "" {
			t.Fatal(d)
		}
	})
}

func TestMessagesSurviveTheWire(t *testing.T) {
	var encoded []byte
	for _, m := range sampleMessages {
		encoded = wire.AppendMessage(encoded, m)
	}
	r := wire.MessageReader{R: bytes.NewReader(encoded)}
	for _, want := range sampleMessages {
		got, err := nextMessage(&r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}, portlist.Program{}), cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	}
	if _, err := nextMessage(&r); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last message: %v", err)
	}
}

func TestALengthAllocatesNothing(t *testing.T) {
	claim := binary.BigEndian.AppendUint32(nil, wire.MaxMessage)
	r := wire.MessageReader{R: bytes.NewReader(append(claim, 1, 2, 3))}
	if _, err := nextMessage(&r); err == nil {
		t.Fatal("a message cut short was accepted")
	}
	if cap(r.Buf) > 128<<10 {
		t.Fatalf("a claim of %d bytes made the reader keep %d", wire.MaxMessage, cap(r.Buf))
	}
	r = wire.MessageReader{R: bytes.NewReader(binary.BigEndian.AppendUint32(nil, wire.MaxMessage+1))}
	if _, err := nextMessage(&r); err == nil {
		t.Fatal("a message beyond the limit was accepted")
	}
}

func TestAURLBeyondTheLimitIsNoMessage(t *testing.T) {
	if _, err := wire.DecodeMessage(encoded(&wire.OpenURLMessage{URL: strings.Repeat("u", wire.MaxURL+1)})); err == nil {
		t.Error("it was decoded")
	}
}

func FuzzOpenRequest(f *testing.F) {
	ok, err := wire.OpenRequest{ID: 1, Target: wire.Target{Network: "tcp", Addrs: []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("[::1]:80")}}}.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ok)
	if ok, err = (wire.OpenRequest{ID: 2, Target: wire.UnixTarget("/run/app.sock")}).Append(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(ok)
	for i, t := range []wire.Target{wire.LogRequest{Lines: 7, Follow: true}.Target(), sampleUpgrade.Target()} {
		if ok, err = (wire.OpenRequest{ID: uint64(10 + i), Target: t, Proof: bytes.Repeat([]byte{1}, 40)}).Append(nil); err != nil {
			f.Fatal(err)
		}
		f.Add(ok)
	}
	again := wire.OpenRequest{ID: 3, Target: wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}}, Reuse: true}
	if ok, err = again.Append(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(append(ok, "what the client has sent already"...))
	again.Reuse, again.HandOver = false, true
	if ok, err = again.Append(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(ok)
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := wire.ReadOpen(bytes.NewReader(b))
		split, _, whole := wire.SplitOpen(b)
		if whole != (err == nil) || whole && !reflect.DeepEqual(split, o) {
			t.Fatalf("%x: read as %v, %v, split as %v, %v", b, o, err, split, whole)
		}
		if err != nil {
			return
		}
		again, err := o.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, b[:len(again)]) {
			t.Fatalf("%x was read, %x written", b, again)
		}
	})
}

var sampleUpgrade = wire.UpgradeRequest{Sum: [32]byte{1, 31: 2}, Size: 10 << 20, Version: "v1.2.3-4-gabc1234" + strings.Repeat("x", wire.MaxUpgradeVersion-17), Downgrade: true}

func TestWhatAnAgentIsAskedForItselfSurvivesTheWire(t *testing.T) {
	log := wire.LogRequest{Lines: 7, Follow: true}
	for _, target := range []wire.Target{log.Target(), sampleUpgrade.Target()} {
		b, err := wire.OpenRequest{ID: 1, Target: target, Proof: bytes.Repeat([]byte{1}, 40)}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.ReadOpen(bytes.NewReader(b))
		if err != nil || !reflect.DeepEqual(got.Target, wire.Target{Network: "agent", Addrs: got.Target.Addrs, Path: target.Path, Args: target.Args}) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if got, err := wire.ReadLogRequest(log.Target().Args); err != nil || got != log {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := wire.ReadUpgradeRequest(sampleUpgrade.Target().Args); err != nil || got != sampleUpgrade {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []wire.Target{
		{Network: "agent"}, {Network: "agent", Path: "../x"}, {Network: "agent", Path: strings.Repeat("x", 17)},
		{Network: "agent", Path: "log", Args: make([]byte, 129)}, {Network: "unix", Path: "/x", Args: []byte("x")},
	} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(wire.AppendAnswer(nil, wire.AnswerOK, ""))
	f.Add(wire.AppendAnswer(nil, wire.AnswerRefused, "connection refused"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a wire.AnswerReader
		err := a.Read(bytes.NewReader(b))
		if refused, ok := errors.AsType[*wire.AnswerError](err); ok && len(refused.Reason) > wire.MaxReason {
			t.Fatalf("a reason of %d bytes got through", len(refused.Reason))
		}
	})
}

// FuzzFrames holds that a frame is found behind any garbage, when the line is one
// that may carry garbage.
func FuzzFrames(f *testing.F) {
	hello := wire.AppendFrame(nil, wire.FrameHello, (&wire.HelloFrame{Min: 1, Max: 1}).Encode())
	f.Add([]byte{}, []byte("body"))
	f.Add(hello[:9], []byte("body"))
	f.Add(bytes.Repeat([]byte{0xff}, 100), []byte{})
	f.Fuzz(func(t *testing.T, garbage, body []byte) {
		if len(body) > wire.MaxFrame {
			return
		}
		strict := wire.FrameReader{R: bytes.NewReader(garbage)}
		_, _, _ = strict.Next()

		// A frame within the garbage may claim bytes of the real one, so
		// that only the repeated frame is found, as with a repeated hello.
		frame := wire.AppendFrame(nil, wire.FrameReply, body)
		line := append(bytes.Clone(garbage), bytes.Repeat(frame, 3+wire.MaxFrame/len(frame))...)
		r := wire.FrameReader{R: bytes.NewReader(line), Resync: true}
		for {
			k, got, err := r.Next()
			if err != nil {
				t.Fatalf("the frame was not found: %v", err)
			}
			if k == wire.FrameReply && bytes.Equal(got, body) {
				return
			}
		}
	})
}

func FuzzHandshakeFrames(f *testing.F) {
	f.Add((&wire.HelloFrame{Min: 1, Max: 2, HasKey: true}).Encode())
	f.Add((&wire.ReplyFrame{Version: 1, Min: 1, Max: 1}).Encode())
	f.Add((&wire.VerdictFrame{Status: wire.StatusAuth, Reason: "the wrong host"}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var h wire.HelloFrame
		if h.Decode(b) && !bytes.HasPrefix(b, h.Encode()) {
			t.Fatal("hello changed")
		}
		var r wire.ReplyFrame
		if r.Decode(b) && !bytes.HasPrefix(b, r.Encode()) {
			t.Fatal("reply changed")
		}
		var v wire.VerdictFrame
		_ = v.Decode(b)
	})
}

// A message with a field, and one of a kind, that come with a later version.
func TestWhatALaterVersionAddsIsSkippedUnlessRequired(t *testing.T) {
	field := func(kind byte) []byte { return []byte{kind, 0, 2, 'a', 'b'} }
	ping := encoded(&wire.PingMessage{Seq: 3})
	open, err := wire.OpenRequest{ID: 1, Target: wire.UDPTarget()}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	readOpen := func(b []byte) error {
		_, err := wire.ReadOpen(bytes.NewReader(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)))
		return err
	}
	control := func(b []byte) error { _, err := wire.DecodeMessage(b); return err }
	for name, c := range map[string]struct {
		in     []byte
		decode func([]byte) error
		want   string // in the error
	}{
		"a field":                 {append(bytes.Clone(ping), field(9)...), control, ""},
		"two fields":              {append(append(bytes.Clone(ping), field(9)...), field(1)...), control, ""},
		"a required field":        {append(bytes.Clone(ping), field(wire.RequiredKind|9)...), control, "upgrade"},
		"a field cut short":       {append(bytes.Clone(ping), field(9)[:4]...), control, "cut short"},
		"a message":               {[]byte{99, 1, 2, 3}, control, ""},
		"a required message":      {[]byte{wire.RequiredKind | 99, 1, 2, 3}, control, "upgrade"},
		"an open request's field": {append(bytes.Clone(open[2:]), field(9)...), readOpen, ""},
		"a required one":          {append(bytes.Clone(open[2:]), field(wire.RequiredKind)...), readOpen, "upgrade"},
	} {
		err := c.decode(c.in)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
