// Package mux is a yamux session whose peer is not trusted. Its streams have the usual
// meaning of a connection, with a half-close and deadlines; what the peer may make it
// hold or do is bounded. It knows nothing of what the streams carry.
package mux

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/rum-vm/rum-agent/tunnel/budget"
)

// window is the receive window of a yamux stream in bytes: the measured knee
// between throughput and what a reader that stalls can pin down in memory.
const window = 1 << 20

// never is longer than any VM stays paused. yamux knows only time-outs that end
// the whole session; whether the peer is alive is decided by heartbeats.
const never = 365 * 24 * time.Hour

// maxBacklog is how many streams of the peer may wait to be accepted.
const maxBacklog = 256

// Session is a yamux session with a guard before it, whose streams have the
// usual meaning of a connection.
type Session struct {
	*yamux.Session
	guard   *guard
	opening sync.Mutex    // held while a stream is opened
	slots   chan struct{} // bounds those that are being opened
}

// maxOpening is how many streams may be opened at a time within a context.
const maxOpening = 128

// New starts the host's end of a session, or the guest's. admit is
// asked, with how many are open, for each stream that the peer opens.
func New(conn io.ReadWriteCloser, host bool, limits Limits, work *budget.Budget, log *slog.Logger, admit func(open int) error) (*Session, error) {
	return start(newGuard(newFrameConn(conn), host, limits, work, admit), host, log)
}

// NewWithResets is New for streams whose ends nobody tells of but the session: one that is closed before
// it has ended on both sides is reset at the other end, and one that reads an end has ended there. Both ends of the
// session have to be of this kind.
func NewWithResets(conn io.ReadWriteCloser, host bool, limits Limits, work *budget.Budget, log *slog.Logger, admit func(open int) error) (*Session, error) {
	g := newGuard(newFrameConn(conn), host, limits, work, admit)
	g.resets, g.sending, g.someRead = true, newSending(), make(chan struct{}, 1)
	go g.tellRead()
	return start(g, host, log)
}

func start(g *guard, host bool, log *slog.Logger) (*Session, error) {
	begin := yamux.Server
	if host {
		begin = yamux.Client
	}
	session, err := begin(g, config(log))
	return &Session{Session: session, guard: g, slots: make(chan struct{}, maxOpening)}, err
}

// Open opens a stream. One is opened at a time: yamux counts first and sends
// afterwards, and the other end takes streams in the order of their numbers.
func (s *Session) Open() (*Conn, error) {
	s.opening.Lock()
	stream, err := s.Session.OpenStream()
	s.opening.Unlock()
	return s.conn(stream, err)
}

// OpenWithin is Open until ctx ends. yamux does not look at a context, so a stream that
// comes too late is closed when it comes; how many can be under way is bounded.
func (s *Session) OpenWithin(ctx context.Context) (*Conn, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.CloseChan():
		return nil, budget.ErrEnded
	}
	type result struct {
		conn *Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		c, err := s.Open()
		<-s.slots
		done <- result{c, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				_ = r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// Accept waits for the next stream that the peer opens.
func (s *Session) Accept(ctx context.Context) (*Conn, error) {
	return s.conn(s.Session.AcceptStreamWithContext(ctx))
}

func (s *Session) conn(stream *yamux.Stream, err error) (*Conn, error) {
	if err != nil {
		return nil, err
	}
	c := &Conn{Stream: stream, guard: s.guard, gone: make(chan struct{}), stopped: make(chan struct{})}
	c.flow = s.guard.attach(stream.StreamID(), c)
	return c, nil
}

func config(log *slog.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
	c.AcceptBacklog = maxBacklog
	c.MaxStreamWindowSize = window
	c.EnableKeepAlive = false        // its pings queue behind data and end a paused session
	c.ConnectionWriteTimeout = never // a write that timed out poisons the session
	c.StreamOpenTimeout = 0          // would end the session, not the stream
	c.StreamCloseTimeout = 0         // would reset half-closed streams that still answer
	c.LogOutput = nil
	c.Logger = yamuxLog{log}
	return c
}

// yamuxLog keeps yamux from writing to standard error, which is not ours alone.
type yamuxLog struct{ log *slog.Logger }

func (l yamuxLog) Print(v ...any)                 { l.emit(fmt.Sprint(v...)) }
func (l yamuxLog) Println(v ...any)               { l.emit(fmt.Sprint(v...)) }
func (l yamuxLog) Printf(format string, v ...any) { l.emit(fmt.Sprintf(format, v...)) }

func (l yamuxLog) emit(s string) {
	l.log.Log(context.Background(), slog.LevelDebug, "yamux", "says", strings.TrimSpace(s))
}
