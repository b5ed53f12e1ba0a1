package mux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
)

var testLimits = Limits{Waiting: 16 << 20, Held: 48 << 20, Thin: budget.Limits{Share: 0.04, Burst: time.Second / 8}}

// peer is the other end of a session, written by hand.
type peer struct {
	t    *testing.T
	conn net.Conn
}

// admitNone lets the peer open nothing.
func admitNone(int) error { return errors.New("it has no listener of ours") }

func guardedSession(t *testing.T) (*Session, *peer) {
	t.Helper()
	ours, theirs := net.Pipe()
	s, err := New(ours, true, testLimits, budget.New(budget.Link), slog.New(slog.DiscardHandler), admitNone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); _ = theirs.Close() })
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	_ = theirs.SetWriteDeadline(time.Now().Add(time.Minute))
	return s, &peer{t, theirs}
}

// send writes a frame, and reports whether the session took it.
func (p *peer) send(kind uint8, flags uint16, id uint32, length int, body []byte) bool {
	head := newHeader(kind, flags, id)
	binary.BigEndian.PutUint32(head[8:], uint32(length))
	_, err := p.conn.Write(append(head[:], body...))
	return err == nil
}

// ended is why the session ended.
func ended(t *testing.T, s *Session) string {
	t.Helper()
	select {
	case <-s.CloseChan():
	case <-time.After(10 * time.Second):
		t.Fatal("the session goes on")
	}
	_, err := s.AcceptStream()
	return err.Error()
}

func TestWhatNoAgentSendsEndsTheSession(t *testing.T) {
	for name, c := range map[string]struct {
		kind  uint8
		flags uint16
		id    uint32
		size  int
		want  string
	}{
		"a ping":            {yamuxPing, yamuxSYN, 0, 1, "yamux ping"},
		"a pong":            {yamuxPing, yamuxACK, 0, 1, "yamux ping"},
		"a stream unasked":  {yamuxWindow, yamuxSYN, 2, 0, "no listener of ours"},
		"an ID of the host": {yamuxWindow, yamuxSYN, 7, 0, "which it cannot"},
		"a huge frame":      {yamuxData, 0, 1, Chunk + 1, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			s, peer := guardedSession(t)
			if _, err := s.Open(); err != nil {
				t.Fatal(err)
			}
			peer.send(c.kind, c.flags, c.id, c.size, nil)
			if why := ended(t, s); !strings.Contains(why, c.want) {
				t.Errorf("ended with %q, want %q", why, c.want)
			}
		})
	}
}

// TestWhatWaitsForSlowClientsHasABound fills the windows of more streams than may
// wait. Those that lose are reset with the reason; of the others nothing is lost.
func TestWhatWaitsForSlowClientsHasABound(t *testing.T) {
	s, peer := guardedSession(t)
	streams := 2 * testLimits.Waiting / window
	conns := make([]*Conn, streams+1)
	for i := range conns {
		c, err := s.Open()
		if err != nil {
			t.Fatal(err)
		}
		if !peer.send(yamuxWindow, yamuxACK, c.StreamID(), 0, nil) {
			t.Fatal("no acknowledgement")
		}
		conns[i] = c
	}
	chunk := make([]byte, Chunk)
	sent := window / Chunk * Chunk
	for _, c := range conns[1:] { // the first is the control stream
		for range sent / Chunk {
			if !peer.send(yamuxData, 0, c.StreamID(), len(chunk), chunk) {
				t.Fatal(ended(t, s))
			}
		}
		s.guard.mu.Lock()
		if s.guard.waiting > testLimits.Waiting {
			t.Errorf("%d bytes wait, at most %d may", s.guard.waiting, testLimits.Waiting)
		}
		s.guard.mu.Unlock()
	}
	whole := 0
	for _, c := range conns[1:] {
		n, err := io.CopyN(io.Discard, c, int64(sent))
		switch {
		case err == nil:
			whole++
		case !errors.Is(err, errTooMuchWaits):
			t.Errorf("a stream ended after %d bytes with %v", n, err)
		}
	}
	if whole < streams/2-2 || whole == streams {
		t.Errorf("%d of %d streams came whole, want what %d bytes hold", whole, streams, testLimits.Waiting)
	}
}

// TestAStreamThatWasShrunkHoldsNothing: what the last read gave counts as waiting until the
// reader says that it is done with.
func TestAStreamThatWasShrunkHoldsNothing(t *testing.T) {
	s, peer := guardedSession(t)
	c, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	const n = 100_000
	if !peer.send(yamuxWindow, yamuxACK, c.StreamID(), 0, nil) || !peer.send(yamuxData, 0, c.StreamID(), Chunk, make([]byte, Chunk)) ||
		!peer.send(yamuxData, 0, c.StreamID(), n-Chunk, make([]byte, n-Chunk)) {
		t.Fatal(ended(t, s))
	}
	if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	held := func() int {
		s.guard.mu.Lock()
		defer s.guard.mu.Unlock()
		return s.guard.held
	}
	if held() < n {
		t.Fatalf("before, %d bytes are held for %d that came", held(), n)
	}
	if c.Shrink(); held() != 0 {
		t.Errorf("%d bytes are held", held())
	}
}

// TestStreamsThePeerLeavesOpenHoldNothing closes streams that the peer goes on to
// fill and never closes.
func TestStreamsThePeerLeavesOpenHoldNothing(t *testing.T) {
	s, peer := guardedSession(t)
	chunk := make([]byte, 4096)
	for range 2000 {
		c, err := s.Open()
		if err != nil {
			t.Fatal(err)
		}
		peer.send(yamuxData, yamuxACK, c.StreamID(), len(chunk), chunk)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if !peer.send(yamuxData, 0, c.StreamID(), len(chunk), chunk) {
			t.Fatal(ended(t, s))
		}
	}
	if n := s.NumStreams(); n > 1 {
		t.Errorf("yamux remembers %d streams, all of which are closed", n)
	}
	s.guard.mu.Lock()
	s.guard.gone = maxForgotten
	s.guard.mu.Unlock()
	c, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if why := ended(t, s); !strings.Contains(why, "streams open") {
		t.Errorf("ended with %q", why)
	}
}

// TestFramesWithoutDataComeAtABoundedRate counts what an endless flood of window
// updates makes yamux do.
func TestFramesWithoutDataComeAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		head := newHeader(yamuxWindow, 0, 1)
		g := newGuard(endless{head[:]}, true, testLimits, budget.New(budget.Link), admitNone)
		g.flows[1] = newFlow(1)
		const seconds = 10
		frames := 0
		buf := make([]byte, 4096)
		for began := time.Now(); time.Since(began) < seconds*time.Second; {
			n, err := g.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			frames += n / yamuxHeader
		}
		allowed := budget.Link.Burst + time.Duration(budget.Link.Share*seconds*float64(time.Second))
		if most := int(allowed/frameCost) + len(buf); frames > most {
			t.Errorf("%d frames in %d s, want at most %d", frames, seconds, most)
		}
	})
}

// TestThinDataComesAtABoundedRate reads a flood of frames of data by a clock that goes on
// only while it is not read.
func TestThinDataComesAtABoundedRate(t *testing.T) {
	for _, row := range []struct {
		size, frames int
		least, most  time.Duration
	}{
		{1, 100_000, 0, 0}, // ten seconds of an interactive program, at once
		{1, 500_000, 8 * time.Second, 12 * time.Second},
		{thinMost / 2, 500_000, 2 * time.Second, 4 * time.Second},
		{thinMost, 100_000, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			head := newHeader(yamuxData, 0, 3)
			binary.BigEndian.PutUint32(head[8:], uint32(row.size))
			frame := append(head[:], make([]byte, row.size)...)
			g := newGuard(endless{frame}, true, testLimits, budget.New(budget.Limits{Share: 1, Burst: time.Hour}), admitNone)
			f := newFlow(3)
			g.flows[f.id] = f
			buf := make([]byte, 64<<10)
			began := time.Now()
			for left := row.frames * len(frame); left > 0; {
				n, err := g.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				left -= n
				g.consumed(f, f.waiting)
			}
			if took := time.Since(began); took < row.least || took > row.most {
				t.Errorf("%d frames of %d bytes took %v, want %v to %v", row.frames, row.size, took, row.least, row.most)
			}
		})
	}
}

// endless repeats what it holds.
type endless struct{ b []byte }

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for len(p)-n >= len(e.b) {
		n += copy(p[n:], e.b)
	}
	return n, nil
}
func (endless) Write(p []byte) (int, error) { return len(p), nil }
func (endless) Close() error                { return nil }

// FuzzGuard gives the guard what a peer may send, in pieces of any size. yamux
// must see whole frames, those of open streams unchanged.
func FuzzGuard(f *testing.F) {
	data := newHeader(yamuxData, 0, 1)
	data[11] = 3
	reset := newHeader(yamuxWindow, yamuxRST, 1)
	f.Add(append(append(data[:], "abc"...), reset[:]...), true)
	f.Add(append(data[:], "abc"...), false)
	f.Add(append(append([]byte(nil), reset[:]...), append(data[:], "abc"...)...), true)
	f.Fuzz(func(t *testing.T, in []byte, small bool) {
		var r io.Reader = bytes.NewReader(in)
		if small {
			r = iotest.OneByteReader(r)
		}
		g := newGuard(struct {
			io.Reader
			io.WriteCloser
		}{r, endless{}}, true, testLimits, budget.New(budget.Limits{Share: 1000, Burst: time.Hour}), admitNone)
		g.flows[1] = newFlow(1)
		g.flows[3] = newFlow(3)
		g.flows[3].over = true
		out, err := io.ReadAll(readerOf{g})
		if len(out) > len(in) {
			t.Fatalf("%d bytes became %d", len(in), len(out))
		}
		for rest := out; len(rest) > 0; {
			if len(rest) < yamuxHeader {
				t.Fatalf("a header of %d bytes (%v)", len(rest), err)
			}
			if rest[0] == 0 && rest[1] <= yamuxWindow && binary.BigEndian.Uint32(rest[4:]) != 1 {
				t.Fatalf("a frame of stream %d passed", binary.BigEndian.Uint32(rest[4:]))
			}
			body := 0
			if rest[0] == 0 && rest[1] == yamuxData {
				body = int(binary.BigEndian.Uint32(rest[8:]))
			}
			rest = rest[min(yamuxHeader+body, len(rest)):]
		}
		if g.waiting > testLimits.Waiting || g.waiting < 0 {
			t.Fatalf("%d bytes wait", g.waiting)
		}
	})
}

// readerOf reads in pieces that the guard takes.
type readerOf struct{ r io.Reader }

func (r readerOf) Read(p []byte) (int, error) {
	var buf [4096]byte
	n, err := r.r.Read(buf[:max(yamuxHeader, min(len(p), len(buf)))])
	if n > len(p) {
		return 0, io.ErrShortBuffer
	}
	return copy(p, buf[:n]), err
}
