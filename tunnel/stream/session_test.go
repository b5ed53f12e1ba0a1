package stream_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// sessionPair returns two ends of a stream of a session with another host.
func sessionPair(t *testing.T) (near, far *mux.Conn) {
	t.Helper()
	a, b := net.Pipe()
	plenty := budget.Limits{Share: 1, Burst: time.Hour}
	limits := mux.Limits{Waiting: 16 << 20, Held: 48 << 20, Thin: plenty}
	log := slog.New(slog.DiscardHandler)
	here, err := mux.NewWithResets(a, true, limits, budget.New(plenty), log, func(int) error { return errors.New("none") })
	if err != nil {
		t.Fatal(err)
	}
	there, err := mux.NewWithResets(b, false, limits, budget.New(plenty), log, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = here.Close(); _ = there.Close() })
	for range 2 { // the first is for control
		if near, err = here.Open(); err != nil {
			t.Fatal(err)
		}
		if far, err = there.Accept(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

// session is a host's end of a link over such a session.
type session struct {
	ends   stream.Ends
	back   chan stream.Carrier // connections that are to be used again
	nextID uint64
}

func newSession() *session {
	s := &session{back: make(chan stream.Carrier, 1)}
	s.ends = stream.Ends{Tell: func(wire.EndMessage) {}, KeepEarly: func(uint64) bool { return false }, Reuse: func(c stream.Carrier) { s.back <- c }}
	return s
}

func (l *session) open(t *testing.T, conn net.Conn) *stream.Stream {
	t.Helper()
	l.nextID++
	s := stream.New(l.nextID, &l.ends)
	s.Reuse(func(c stream.Carrier) { l.ends.AwaitRelease(s, c) })
	if err := l.ends.Add(s); err != nil {
		t.Fatal(err)
	}
	if err := s.Attach(conn); err != nil {
		t.Fatal(err)
	}
	return s
}

// What ends a stream is told apart from its bytes and may be ahead of them, and the connection itself goes on.
func TestAConnectionOfASessionCarriesOneStreamAfterTheOther(t *testing.T) {
	near, far := sessionPair(t)
	l := newSession()
	var conn net.Conn = near
	for range 50 {
		s := l.open(t, conn)
		all, read := make(chan bool, 1), make(chan string, 1)
		go func() {
			answer := make([]byte, len("answer"))
			_, _ = io.ReadFull(s, answer)
			all <- true
			rest, err := io.ReadAll(s)
			read <- string(answer) + string(rest) + ", " + errorText(err)
		}()
		if _, err := io.WriteString(s, "question"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, make([]byte, len("question"))); err != nil {
			t.Fatal(err)
		}
		_ = s.CloseWrite()
		if s.ID()%2 == 0 { // else the reader waits for an answer, or for more, when it is told
			_, _ = far.Write(wire.AppendAnswer(nil, wire.AnswerOK, ""))
		}
		if s.ID()%3 == 0 {
			l.ends.Deliver(wire.EndMessage{ID: s.ID(), Kind: wire.EndComplete, Sent: 6})
		}
		if s.ID()%2 != 0 {
			_, _ = far.Write(wire.AppendAnswer(nil, wire.AnswerOK, ""))
		}
		_, _ = io.WriteString(far, "answer")
		if s.ID()%3 != 0 { // the reader has read everything, and waits for more
			soon(t, all, "everything is read")
			l.ends.Deliver(wire.EndMessage{ID: s.ID(), Kind: wire.EndComplete, Sent: 6})
		}
		if got := soon(t, read, "the reader sees the end"); got != "answer, none" {
			t.Fatalf("stream %d: read %s", s.ID(), got)
		}
		_ = s.Close()
		select {
		case <-l.back:
			t.Fatal("the connection is used again before the guest has released it")
		default:
		}
		l.ends.Deliver(wire.EndMessage{ID: s.ID(), Kind: wire.EndReleased})
		c := soon(t, l.back, "the connection comes back")
		if c.Stale() {
			t.Fatalf("stream %d leaves something on the connection", s.ID())
		}
		conn = c.Conn()
	}
}

func errorText(err error) string {
	if err == nil {
		return "none"
	}
	return err.Error()
}

func TestAConnectionOfASessionIsNotUsedAgainAfterAnythingButACleanEnd(t *testing.T) {
	for name, end := range map[string]func(l *session, s *stream.Stream, far *mux.Conn){
		"aborted here":          func(_ *session, s *stream.Stream, _ *mux.Conn) { s.Abort() },
		"closed before its end": func(_ *session, s *stream.Stream, _ *mux.Conn) { _ = s.Close() },
		"aborted there": func(l *session, s *stream.Stream, far *mux.Conn) {
			_, _ = far.Write(wire.AppendAnswer(nil, wire.AnswerOK, ""))
			l.ends.Deliver(wire.EndMessage{ID: s.ID(), Kind: wire.EndAborted})
			_, _ = io.ReadAll(s)
			_ = s.Close()
		},
		"refused": func(l *session, s *stream.Stream, far *mux.Conn) {
			_, _ = far.Write(wire.AppendAnswer(nil, wire.AnswerRefused, ""))
			l.ends.Deliver(wire.EndMessage{ID: s.ID(), Kind: wire.EndComplete})
			_, _ = io.ReadAll(s)
			_ = s.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := sessionPair(t)
			l := newSession()
			s := l.open(t, near)
			end(l, s, far)
			l.ends.Deliver(wire.EndMessage{ID: s.ID(), Kind: wire.EndReleased})
			_ = far.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.ReadAll(far); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is left open")
			}
			if len(l.back) > 0 {
				t.Error("the connection comes back")
			}
		})
	}
}

func TestAConnectionOfASessionThatIsSpokenOnWhileItIsKeptIsStale(t *testing.T) {
	for name, do := range map[string]func(far *mux.Conn){
		"bytes":   func(far *mux.Conn) { _, _ = far.Write([]byte("x")) },
		"an end":  func(far *mux.Conn) { _ = far.CloseWrite() },
		"a reset": func(far *mux.Conn) { far.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			near, far := sessionPair(t)
			c, err := stream.NewCarrier(near)
			if err != nil || c.Stale() {
				t.Fatalf("a new connection is stale, or none: %v", err)
			}
			do(far)
			for end := time.Now().Add(20 * time.Second); !c.Stale(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it counts as fresh")
				}
			}
			c.Close()
		})
	}
}
