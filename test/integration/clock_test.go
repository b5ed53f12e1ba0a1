package integration

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// guestWithAClock is a guest that announces nothing and answers heartbeats with what now says; a clock of its own
// no guest agent can have beside this machine's. It returns the unix socket of its serial port.
func guestWithAClock(t *testing.T, now func() int64) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "clock.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = answerHeartbeats(c, now)
			}()
		}
	}()
	return path
}

func answerHeartbeats(c net.Conn, now func() int64) error {
	line := handshake.NewLine(c)
	if err := handshake.Guest(line, true, nil, [16]byte{1}, nil, func(handshake.Agreed) error { return nil }); err != nil {
		return err
	}
	session, err := mux.New(line, false, mux.Limits{Waiting: 1 << 20, Held: 1 << 20, Thin: budget.Link}, budget.New(budget.Link),
		slog.New(slog.DiscardHandler), func(int) error { return nil })
	if err != nil {
		return err
	}
	defer session.Close()
	stream, err := session.Accept(context.Background())
	if err != nil {
		return err
	}
	b := wire.AppendMessage(nil, &wire.HelloMessage{AgentVersion: "v1", Hostname: "late"})
	if _, err := stream.Write(wire.AppendMessage(b, &wire.SnapshotMessage{Generation: 1})); err != nil {
		return err
	}
	for r := (wire.MessageReader{R: stream}); ; {
		b, err := r.Next()
		if err != nil {
			return err
		}
		m, err := wire.DecodeMessage(b)
		if err != nil {
			return err
		}
		if ping, ok := m.(*wire.PingMessage); ok {
			if _, err := stream.Write(wire.AppendMessage(nil, &wire.PongMessage{Seq: ping.Seq, Now: now()})); err != nil {
				return err
			}
		}
	}
}

func TestDoctorFindsAGuestWhoseClockIsBehind(t *testing.T) {
	var behind atomic.Int64
	behind.Store(int64(90 * time.Minute))
	g := newGuest(t, "dev")
	h := &hostAgent{socket: filepath.Join(t.TempDir(), "control.sock")}
	h.program = start(t, "rum-host-agent", "run", "--socket", h.socket, "--vm", g.vm(),
		"--vm", "late=serial:"+guestWithAClock(t, func() int64 { return time.Now().UnixNano() - behind.Load() }))
	eventually(t, "the guest's time", func() bool {
		st, err := control.NewClient(h.socket).StatusOf(t.Context(), status.Query{VM: "late"})
		return err == nil && len(st.VMs) == 1 && st.VMs[0].ClockAhead < -5000
	})
	eventually(t, "the other guest", func() bool { return h.vm(t, "dev").State == status.Connected })
	all := examined(t, nil, h.socket)
	wantCheck(t, all, "late clock", "behind this machine's", fmt.Sprintf("rum-host-agent ssh late --socket %s -- sudo date -s @$(date +%%s)", h.socket))
	for _, c := range all {
		if strings.HasPrefix(c.Name, "dev") && !c.OK {
			t.Errorf("of a guest on this machine's clock: %+v", c)
		}
	}
	behind.Store(0)
	eventually(t, "the clock to be right", func() bool { return h.vm(t, "late").ClockAhead == 0 })
}
