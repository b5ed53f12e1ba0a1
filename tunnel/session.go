package tunnel

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/yamux"
)

// muxWindow is the receive window of a yamux stream in bytes: the measured knee
// between throughput and what a reader that stalls can pin down in memory.
const muxWindow = 4 << 20

// never is longer than any VM stays paused. yamux knows only time-outs that end
// the whole session; whether the peer is alive is decided by heartbeats.
const never = 365 * 24 * time.Hour

func muxConfig(log *slog.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
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

// yamuxHeader is the length of a yamux frame header; yamuxData is the type of a
// frame with a body (yamux spec.md).
const (
	yamuxHeader = 12
	yamuxData   = 0
)

// frameConn joins the header and the body of a yamux frame, which yamux writes
// one after the other, to one write: one packet on vsock, one system call
// anywhere. Only yamux's single send loop may write to it.
type frameConn struct {
	io.ReadCloser
	w       io.Writer
	vectors bool // w is a socket on which net.Buffers becomes writev(2)
	frame   []byte
	parts   [2][]byte
	bufs    net.Buffers
	header  [yamuxHeader]byte
	pending bool
}

func newFrameConn(c io.ReadWriteCloser) *frameConn {
	f := &frameConn{ReadCloser: c, w: c}
	switch c.(type) {
	case *net.UnixConn, *net.TCPConn:
		f.vectors = true
	}
	return f
}

func (f *frameConn) Write(b []byte) (int, error) {
	if !f.pending {
		if len(b) == yamuxHeader && b[1] == yamuxData && binary.BigEndian.Uint32(b[8:]) > 0 {
			copy(f.header[:], b)
			f.pending = true
			return len(b), nil
		}
		return f.w.Write(b)
	}
	f.pending = false
	if f.vectors {
		f.parts = [2][]byte{f.header[:], b}
		f.bufs = f.parts[:]
		n, err := f.bufs.WriteTo(f.w)
		return max(0, int(n)-yamuxHeader), err
	}
	f.frame = append(append(f.frame[:0], f.header[:]...), b...)
	n, err := f.w.Write(f.frame)
	return max(0, n-yamuxHeader), err
}
