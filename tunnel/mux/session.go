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
	opening sync.Mutex // held while a stream is opened
}

// New starts the host's end of a session, or the guest's. admit is
// asked, with how many are open, for each stream that the peer opens.
func New(conn io.ReadWriteCloser, host bool, limits Limits, work *budget.Budget, log *slog.Logger, admit func(open int) error) (*Session, error) {
	s := &Session{guard: newGuard(newFrameConn(conn), host, limits, work, admit)}
	begin := yamux.Server
	if host {
		begin = yamux.Client
	}
	var err error
	s.Session, err = begin(s.guard, config(log))
	return s, err
}

// Open opens a stream. One is opened at a time: yamux counts first and sends
// afterwards, and the other end takes streams in the order of their numbers.
func (s *Session) Open() (*Conn, error) {
	s.opening.Lock()
	stream, err := s.Session.OpenStream()
	s.opening.Unlock()
	return s.conn(stream, err)
}

// Accept waits for the next stream that the peer opens.
func (s *Session) Accept(ctx context.Context) (*Conn, error) {
	return s.conn(s.Session.AcceptStreamWithContext(ctx))
}

func (s *Session) conn(stream *yamux.Stream, err error) (*Conn, error) {
	if err != nil {
		return nil, err
	}
	c := &Conn{Stream: stream, guard: s.guard}
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
