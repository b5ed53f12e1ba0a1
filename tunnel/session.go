package tunnel

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/yamux"
)

// muxWindow is the receive window of a yamux stream in bytes: the measured knee
// between throughput and what a reader that stalls can pin down in memory.
const muxWindow = 1 << 20

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
