package handshake

import (
	"io"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// A line that brings nothing but garbage is read slowly: beyond skipFree bytes, a
// pause of skipPause for each skipTurn. What a dead peer left there is less.
const (
	skipFree  = 1 << 20
	skipTurn  = 64 << 10
	skipPause = 20 * time.Millisecond
	// frameSkip is as how many bytes a frame counts, each of which may take a proof and an
	// answer. The hellos that a host repeats for minutes are within skipFree.
	frameSkip = 1 << 10
)

// frameReader reads the frames of a handshake, of which there are two from each side: a line
// that brings nothing but frames is read as slowly as one that brings garbage.
type frameReader struct {
	wire.FrameReader
	skipped int // bytes since the last pause, a frame as frameSkip of them
}

func newFrameReader(r io.Reader, resync bool) *frameReader {
	f := &frameReader{}
	f.FrameReader = wire.FrameReader{R: r, Resync: resync, Skipped: f.skip}
	return f
}

// Next returns the kind and the body of the next frame.
func (f *frameReader) Next() (wire.FrameKind, []byte, error) {
	k, body, err := f.FrameReader.Next()
	f.skip(frameSkip)
	return k, body, err
}

// skip takes note of bytes that bring a handshake no further.
func (f *frameReader) skip(n int) {
	if f.skipped += n; f.skipped >= skipFree+skipTurn {
		f.skipped -= skipTurn
		time.Sleep(skipPause)
	}
}
