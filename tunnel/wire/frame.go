package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FrameMagic begins every frame. Before a connection belongs to a session or a stream, frames are exchanged on
// it: magic, kind, a 16-bit length and the body. The first byte of the magic is
// no valid yamux version, so a frame that reaches a stale yamux session ends it.
var FrameMagic = [8]byte{0xff, 'R', 'U', 'M', '\r', '\n', 0x1a, '\n'}

// FrameKind is what a frame says.
type FrameKind uint8

// Values are on the wire.
const (
	FrameHello FrameKind = 1 // host: versions and nonce
	FrameReply FrameKind = 2 // guest: version, nonce and proof
	FrameProof FrameKind = 3 // host: proof, or why not
	FrameReady FrameKind = 4 // guest: the session follows, or why not
	FrameRaw   FrameKind = 5 // host: token; an open request follows, perhaps much later
	FrameEnds  FrameKind = 6 // host: token; records of ends follow, both ways
)

const (
	frameHeader = len(FrameMagic) + 3
	// MaxFrame is how long the body of a frame may be, in bytes.
	MaxFrame = 1024
)

// AppendFrame adds a frame to b.
func AppendFrame(b []byte, k FrameKind, body []byte) []byte {
	b = append(b, FrameMagic[:]...)
	b = append(b, byte(k))
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// FrameReader reads frames from R and not a byte more. With Resync it skips whatever
// is not a frame: on a serial line bytes of a dead peer may come first, and a
// shell may print a banner.
type FrameReader struct {
	R      io.Reader
	Resync bool
	// Skipped is told how many bytes were skipped; nil for nobody to tell.
	Skipped func(bytes int)
}

func (f *FrameReader) skip(n int) {
	if f.Skipped != nil {
		f.Skipped(n)
	}
}

// Next returns the kind and the body of the next frame.
func (f *FrameReader) Next() (FrameKind, []byte, error) {
	for {
		header, err := f.header()
		if err != nil {
			return 0, nil, err
		}
		k, n := FrameKind(header[0]), int(binary.BigEndian.Uint16(header[1:]))
		if k < FrameHello || k > FrameEnds || n > MaxFrame {
			if f.Resync {
				f.skip(frameHeader)
				continue
			}
			return 0, nil, fmt.Errorf("frame of kind %d with %d bytes", k, n)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(f.R, body); err != nil {
			return 0, nil, err
		}
		return k, body, nil
	}
}

// ErrNotOurs is the error of bytes that no agent of ours sends.
var ErrNotOurs = errors.New("not the protocol of a rum agent")

// header reads what is in front of a body, and returns what follows the magic.
func (f *FrameReader) header() ([3]byte, error) {
	const magic = len(FrameMagic)
	var got [frameHeader]byte
	if _, err := io.ReadFull(f.R, got[:]); err != nil {
		return [3]byte{}, err
	}
	for [magic]byte(got[:]) != FrameMagic {
		if !f.Resync {
			return [3]byte{}, fmt.Errorf("%w: starts with %q", ErrNotOurs, got[:magic])
		}
		// Move on to the next byte that could begin the magic.
		skip := 1 + bytes.IndexByte(got[1:], FrameMagic[0])
		if skip == 0 {
			skip = len(got)
		}
		f.skip(skip)
		n := copy(got[:], got[skip:])
		if _, err := io.ReadFull(f.R, got[n:]); err != nil {
			return [3]byte{}, err
		}
	}
	return [3]byte(got[magic:]), nil
}
