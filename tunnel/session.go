package tunnel

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

// muxWindow is the receive window of a yamux stream in bytes: the measured knee
// between throughput and what a reader that stalls can pin down in memory.
const muxWindow = 1 << 20

// never is longer than any VM stays paused. yamux knows only time-outs that end
// the whole session; whether the peer is alive is decided by heartbeats.
const never = 365 * 24 * time.Hour

// maxBacklog is how many streams of the peer may wait to be accepted.
const maxBacklog = 256

// muxSession is a yamux session with a guard before it, whose streams have the
// usual meaning of a connection.
type muxSession struct {
	*yamux.Session
	guard   *muxGuard
	opening sync.Mutex // held while a stream is opened
}

// newMuxSession starts the host's end of a session, or the guest's. admit is
// asked, with how many are open, for each stream that the peer opens.
func newMuxSession(conn io.ReadWriteCloser, host bool, limits muxLimits, work *budget.Budget, log *slog.Logger, admit func(open int) error) (*muxSession, error) {
	s := &muxSession{guard: newMuxGuard(newFrameConn(conn), host, limits, work, admit)}
	begin := yamux.Server
	if host {
		begin = yamux.Client
	}
	var err error
	s.Session, err = begin(s.guard, muxConfig(log))
	return s, err
}

// open opens a stream. One is opened at a time: yamux counts first and sends
// afterwards, and the other end takes streams in the order of their numbers.
func (s *muxSession) open() (*muxConn, error) {
	s.opening.Lock()
	stream, err := s.Session.OpenStream()
	s.opening.Unlock()
	return s.conn(stream, err)
}

func (s *muxSession) accept(ctx context.Context) (*muxConn, error) {
	return s.conn(s.Session.AcceptStreamWithContext(ctx))
}

func (s *muxSession) conn(stream *yamux.Stream, err error) (*muxConn, error) {
	if err != nil {
		return nil, err
	}
	c := &muxConn{Stream: stream, guard: s.guard}
	c.flow = s.guard.attach(stream.StreamID(), c)
	return c, nil
}

func muxConfig(log *slog.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
	c.AcceptBacklog = maxBacklog
	c.MaxStreamWindowSize = muxWindow
	c.EnableKeepAlive = false        // its pings queue behind data and end a paused session
	c.ConnectionWriteTimeout = never // a write that timed out poisons the session
	c.StreamOpenTimeout = 0          // would end the session, not the stream
	c.StreamCloseTimeout = 0         // would reset half-closed streams that still answer
	c.LogOutput = nil
	c.Logger = muxLog{log}
	return c
}

// muxLog keeps yamux from writing to standard error, which is not ours alone.
type muxLog struct{ log *slog.Logger }

func (l muxLog) Print(v ...any)                 { l.emit(fmt.Sprint(v...)) }
func (l muxLog) Println(v ...any)               { l.emit(fmt.Sprint(v...)) }
func (l muxLog) Printf(format string, v ...any) { l.emit(fmt.Sprintf(format, v...)) }

func (l muxLog) emit(s string) {
	l.log.Log(context.Background(), slog.LevelDebug, "yamux", "says", strings.TrimSpace(s))
}
