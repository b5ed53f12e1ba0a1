package handshake_test

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// line brings a frame again and again, left times.
type line struct {
	make func() []byte
	left int
	rest bytes.Buffer
}

func (l *line) Read(b []byte) (int, error) {
	if l.rest.Len() == 0 {
		if l.left == 0 {
			return 0, io.EOF
		}
		l.left--
		l.rest.Write(l.make())
	}
	return l.rest.Read(b)
}

func (l *line) Write(b []byte) (int, error) { return len(b), nil }

// TestALineThatBringsFramesNobodyAskedForIsReadSlowly counts how many of them are read in
// a while, by a clock that goes on only while the reader rests.
func TestALineThatBringsFramesNobodyAskedForIsReadSlowly(t *testing.T) {
	host := func(l *line) error { _, err := handshake.Host(l, true, nil); return err }
	guest := func(l *line) error {
		return handshake.Guest(l, true, nil, [16]byte{}, nil, func(handshake.Agreed) error { return nil })
	}
	frame := func(k wire.FrameKind, body []byte) func() []byte {
		return func() []byte { return wire.AppendFrame(nil, k, body) }
	}
	n := byte(0)
	for name, row := range map[string]struct {
		side func(*line) error
		make func() []byte
	}{
		"empty replies":     {host, frame(wire.FrameReply, nil)},
		"replies to others": {host, frame(wire.FrameReply, (&wire.ReplyFrame{Version: 2}).Encode())},
		"ready too early":   {host, frame(wire.FrameReady, (&wire.VerdictFrame{}).Encode())},
		"hellos to a host":  {host, frame(wire.FrameHello, (&wire.HelloFrame{}).Encode())},
		"the same hello":    {guest, frame(wire.FrameHello, (&wire.HelloFrame{Min: 2, Max: 2}).Encode())},
		"proofs of nothing": {guest, frame(wire.FrameProof, (&wire.VerdictFrame{}).Encode())},
		"ever new hellos": {guest, func() []byte {
			n++
			return wire.AppendFrame(nil, wire.FrameHello, (&wire.HelloFrame{Min: 2, Max: 2, Nonce: [wire.NonceSize]byte{n}}).Encode())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const free, perSecond, frames = 2000, 4000, 30_000
				began := time.Now()
				if err := row.side(&line{make: row.make, left: frames}); err == nil {
					t.Error("hands were shaken")
				}
				if took := time.Since(began); took < (frames-free)*time.Second/perSecond {
					t.Errorf("%d frames were read in %v", frames, took)
				}
			})
		})
	}
}

func TestAConnectionOfItsOwnTakesOneHello(t *testing.T) {
	l := &line{make: func() []byte {
		return wire.AppendFrame(nil, wire.FrameHello, (&wire.HelloFrame{Min: 2, Max: 2}).Encode())
	}, left: 5}
	if err := handshake.Guest(l, false, nil, [16]byte{}, nil, nil); err == nil || err == io.EOF || l.left != 3 {
		t.Errorf("%d of 5 hellos are left (%v)", l.left, err)
	}
}
