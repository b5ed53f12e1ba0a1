package tunnel

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

// muxPeer is the other end of a session, written by hand.
type muxPeer struct {
	t    *testing.T
	conn net.Conn
}

func guardedSession(t *testing.T) (*muxSession, *muxPeer) {
	t.Helper()
	ours, theirs := net.Pipe()
	s, err := newMuxSession(ours, true, trustedLimits, budget.New(budget.Link), slog.New(slog.DiscardHandler), new(reverses).admit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); _ = theirs.Close() })
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	_ = theirs.SetWriteDeadline(time.Now().Add(time.Minute))
	return s, &muxPeer{t, theirs}
}

// send writes a frame, and reports whether the session took it.
func (p *muxPeer) send(kind uint8, flags uint16, id uint32, length int, body []byte) bool {
	head := newMuxHead(kind, flags, id)
	binary.BigEndian.PutUint32(head[8:], uint32(length))
	_, err := p.conn.Write(append(head[:], body...))
	return err == nil
}

// ended is why the session ended.
func ended(t *testing.T, s *muxSession) string {
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
		"a huge frame":      {yamuxData, 0, 1, muxChunk + 1, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			s, peer := guardedSession(t)
			if _, err := s.open(); err != nil {
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
	streams := 2 * trustedLimits.waiting / muxWindow
	conns := make([]*muxConn, streams+1)
	for i := range conns {
		c, err := s.open()
		if err != nil {
			t.Fatal(err)
		}
		if !peer.send(yamuxWindow, yamuxACK, c.StreamID(), 0, nil) {
			t.Fatal("no acknowledgement")
		}
		conns[i] = c
	}
	chunk := make([]byte, muxChunk)
	sent := muxWindow / muxChunk * muxChunk
	for _, c := range conns[1:] { // the first is the control stream
		for range sent / muxChunk {
			if !peer.send(yamuxData, 0, c.StreamID(), len(chunk), chunk) {
				t.Fatal(ended(t, s))
			}
		}
		s.guard.mu.Lock()
		if s.guard.waiting > trustedLimits.waiting {
			t.Errorf("%d bytes wait, at most %d may", s.guard.waiting, trustedLimits.waiting)
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
		t.Errorf("%d of %d streams came whole, want what %d bytes hold", whole, streams, trustedLimits.waiting)
	}
}

// TestStreamsThePeerLeavesOpenHoldNothing closes streams that the peer goes on to
// fill and never closes.
func TestStreamsThePeerLeavesOpenHoldNothing(t *testing.T) {
	s, peer := guardedSession(t)
	chunk := make([]byte, 4096)
	for range 2000 {
		c, err := s.open()
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
	c, err := s.open()
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
		head := newMuxHead(yamuxWindow, 0, 1)
		g := newMuxGuard(endless{head[:]}, true, trustedLimits, budget.New(budget.Link), new(reverses).admit)
		g.flows[1] = &muxFlow{id: 1}
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

// FuzzMuxGuard gives the guard what a peer may send, in pieces of any size. yamux
// must see whole frames, those of open streams unchanged.
func FuzzMuxGuard(f *testing.F) {
	data := newMuxHead(yamuxData, 0, 1)
	data[11] = 3
	reset := newMuxHead(yamuxWindow, yamuxRST, 1)
	f.Add(append(append(data[:], "abc"...), reset[:]...), true)
	f.Add(append(data[:], "abc"...), false)
	f.Add(append(append([]byte(nil), reset[:]...), append(data[:], "abc"...)...), true)
	f.Fuzz(func(t *testing.T, in []byte, small bool) {
		var r io.Reader = bytes.NewReader(in)
		if small {
			r = iotest.OneByteReader(r)
		}
		g := newMuxGuard(struct {
			io.Reader
			io.WriteCloser
		}{r, endless{}}, true, trustedLimits, budget.New(budget.Limits{Share: 1000, Burst: time.Hour}), new(reverses).admit)
		g.flows[1] = &muxFlow{id: 1}
		g.flows[3] = &muxFlow{id: 3, over: true}
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
		if g.waiting > trustedLimits.waiting || g.waiting < 0 {
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
