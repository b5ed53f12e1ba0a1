package tunnel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rum-vm/rum-agent/portwatch"
)

var sampleListeners = []portwatch.Listener{
	{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:80"), Process: "nginx[812]"},
	{Proto: "tcp", Addr: netip.MustParseAddrPort("[::]:80")},
	{Proto: "udp", Addr: netip.MustParseAddrPort("10.0.0.3:53"), Process: "dnsmasq[1]", Interface: "eth1"},
	{Proto: "udp", Addr: netip.MustParseAddrPort("[::]:40000"), Ephemeral: true, V6Only: true, Inode: 77},
}

// sampleSkipped are items of lists: of a protocol that a later version may know,
// and of none.
var sampleSkipped = []skippedItem{
	{Raw: "\x07\x04\x7f\x00\x00\x01\x00\x50", Reason: "a listener of unknown protocol 7"},
	{Raw: "", Reason: "a listener of no protocol"},
}

var sampleMessages = []message{
	&helloMessage{AgentVersion: "v1.2.3", Hostname: "dev", BootID: "6f1c"},
	&snapshotMessage{Generation: 7, Listeners: sampleListeners},
	&snapshotMessage{Generation: 1},
	&snapshotMessage{Generation: 1, Skipped: sampleSkipped},
	&deltaMessage{From: 7, To: 8, Removed: keysOnly(sampleListeners[:1]), Added: sampleListeners[1:]},
	&deltaMessage{From: 8, To: 9, SkippedRemoved: sampleSkipped, SkippedAdded: sampleSkipped},
	&scanErrorMessage{Text: "open /proc/net/tcp: permission denied"},
	&pingMessage{Seq: 3},
	&pongMessage{Seq: 3},
	&endMessage{ID: 9, Kind: endComplete, Sent: 1 << 40},
	&reverseMessage{Listeners: []reverseSpec{
		{ID: 1, Listen: Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}}},
		{ID: 2, Listen: UnixTarget("/run/app.sock")},
	}},
	&reverseStateMessage{ID: 2, State: ReverseInUse, Reason: "address already in use"},
}

// encoded is a message as decodeMessage takes it.
func encoded(m message) []byte { return appendMessage(nil, m)[4:] }

// nextMessage reads and decodes a message.
func nextMessage(r *messageReader) (message, error) {
	b, err := r.next()
	if err != nil {
		return nil, err
	}
	return decodeMessage(b)
}

func FuzzControlMessage(f *testing.F) {
	for _, m := range sampleMessages {
		f.Add(encoded(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		again, err := decodeMessage(encoded(m))
		if err != nil {
			t.Fatalf("what was decoded does not encode to something decodable: %v", err)
		}
		if d := cmp.Diff(m, again, cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
			t.Fatal(d)
		}
	})
}

func TestMessagesSurviveTheWire(t *testing.T) {
	var encoded []byte
	for _, m := range sampleMessages {
		encoded = appendMessage(encoded, m)
	}
	r := messageReader{r: bytes.NewReader(encoded)}
	for _, want := range sampleMessages {
		got, err := nextMessage(&r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	}
	if _, err := nextMessage(&r); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last message: %v", err)
	}
}

func TestALengthAllocatesNothing(t *testing.T) {
	claim := binary.BigEndian.AppendUint32(nil, maxMessage)
	r := messageReader{r: bytes.NewReader(append(claim, 1, 2, 3))}
	if _, err := nextMessage(&r); err == nil {
		t.Fatal("a message cut short was accepted")
	}
	if cap(r.buf) > 128<<10 {
		t.Fatalf("a claim of %d bytes made the reader keep %d", maxMessage, cap(r.buf))
	}
	r = messageReader{r: bytes.NewReader(binary.BigEndian.AppendUint32(nil, maxMessage+1))}
	if _, err := nextMessage(&r); err == nil {
		t.Fatal("a message beyond the limit was accepted")
	}
}

func FuzzOpenRequest(f *testing.F) {
	ok, err := openRequest{ID: 1, Target: Target{Network: "tcp", Addrs: []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("[::1]:80")}}}.append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ok)
	if ok, err = (openRequest{ID: 2, Target: UnixTarget("/run/app.sock")}).append(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(ok)
	again := openRequest{ID: 3, Target: Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}}, Reuse: true}
	if ok, err = again.append(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(append(ok, "what the client has sent already"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := readOpen(bytes.NewReader(b))
		split, _, whole := splitOpen(b)
		if whole != (err == nil) || whole && !reflect.DeepEqual(split, o) {
			t.Fatalf("%x: read as %v, %v, split as %v, %v", b, o, err, split, whole)
		}
		if err != nil {
			return
		}
		again, err := o.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, b[:len(again)]) {
			t.Fatalf("%x was read, %x written", b, again)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(appendAnswer(nil, AnswerOK, ""))
	f.Add(appendAnswer(nil, AnswerRefused, "connection refused"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a answerReader
		err := a.readFrom(bytes.NewReader(b))
		if refused, ok := errors.AsType[*AnswerError](err); ok && len(refused.Reason) > maxReason {
			t.Fatalf("a reason of %d bytes got through", len(refused.Reason))
		}
	})
}

// FuzzFrames holds that a frame is found behind any garbage, when the line is one
// that may carry garbage.
func FuzzFrames(f *testing.F) {
	hello := appendFrame(nil, frameHello, (&helloFrame{min: 1, max: 1}).encode())
	f.Add([]byte{}, []byte("body"))
	f.Add(hello[:9], []byte("body"))
	f.Add(bytes.Repeat([]byte{0xff}, 100), []byte{})
	f.Fuzz(func(t *testing.T, garbage, body []byte) {
		if len(body) > maxFrame {
			return
		}
		strict := frameReader{r: bytes.NewReader(garbage)}
		_, _, _ = strict.next()

		// A frame within the garbage may claim bytes of the real one, so
		// that only the repeated frame is found, as with a repeated hello.
		frame := appendFrame(nil, frameReply, body)
		line := append(bytes.Clone(garbage), bytes.Repeat(frame, 3+maxFrame/len(frame))...)
		r := frameReader{r: bytes.NewReader(line), resync: true}
		for {
			k, got, err := r.next()
			if err != nil {
				t.Fatalf("the frame was not found: %v", err)
			}
			if k == frameReply && bytes.Equal(got, body) {
				return
			}
		}
	})
}

func FuzzHandshakeFrames(f *testing.F) {
	f.Add((&helloFrame{min: 1, max: 2, hasKey: true}).encode())
	f.Add((&replyFrame{version: 1, min: 1, max: 1}).encode())
	f.Add((&verdictFrame{status: statusAuth, reason: reasonWrongHost}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var h helloFrame
		if h.decode(b) && !bytes.HasPrefix(b, h.encode()) {
			t.Fatal("hello changed")
		}
		var r replyFrame
		if r.decode(b) && !bytes.HasPrefix(b, r.encode()) {
			t.Fatal("reply changed")
		}
		var v verdictFrame
		_ = v.decode(b)
	})
}

func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"vsock:3", "vsock:3:99", "hybrid:/run/v.sock:52", "unix:/run/a", "serial:/dev/x", "exec:ssh box rum-guest-agent --stdio"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEndpoint(s)
		if err != nil {
			return
		}
		again, err := ParseEndpoint(e.String())
		if err != nil || again != e {
			t.Fatalf("%q is %+v, which is written %q and read as %+v, %v", s, e, e.String(), again, err)
		}
	})
}

// FuzzAnnounced holds the host's copy of the guest's set to a simple model.
func FuzzAnnounced(f *testing.F) {
	var seed []byte
	for _, m := range sampleMessages {
		seed = appendMessage(seed, m)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := messageReader{r: bytes.NewReader(b)}
		var a announced
		for {
			m, err := nextMessage(&r)
			if err != nil {
				return
			}
			if _, err := a.apply(m); err != nil {
				return
			}
			now := a.announcement()
			if len(now.Listeners) > MaxListeners {
				t.Fatalf("%d listeners", len(now.Listeners))
			}
			for i := 1; i < len(now.Listeners); i++ {
				if compareListeners(now.Listeners[i-1], now.Listeners[i]) >= 0 {
					t.Fatal("not sorted, or one twice")
				}
			}
		}
	})
}
