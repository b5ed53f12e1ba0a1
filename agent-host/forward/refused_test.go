package forward_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// TestAFloodOfClientsOfAServiceThatIsDownIsNotPassedOn: what any user of the host can
// cause is kept from the link, which others use.
func TestAFloodOfClientsOfAServiceThatIsDownIsNotPassedOn(t *testing.T) {
	const clients, aSecond = 3000, 100
	var passed atomic.Int32
	var up atomic.Bool
	there := linkTo(echo(t, "127.0.0.3:0"))
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(&serve.Link{
		Path: "vsock", Silent: there.Silent,
		Open: func(ctx context.Context, target wire.Target, early []byte) (relay.Conn, string, error) {
			if up.Load() {
				return there.Open(ctx, target, early)
			}
			passed.Add(1)
			return nil, "", &wire.AnswerError{Status: wire.AnswerRefused, Reason: "nobody is there"}
		},
	})
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	began := time.Now()
	for range clients {
		c, err := net.DialTimeout("tcp", addr("127.0.0.1", port), patience)
		if errors.Is(err, syscall.ECONNRESET) {
			continue // before it had heard that it is connected
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, c); err == nil {
			t.Fatalf("%d bytes and an end, want a reset", n)
		}
		_ = c.Close()
	}
	if most := aSecond * (2 + int(time.Since(began)/time.Second)); passed.Load() < aSecond || int(passed.Load()) > most {
		t.Errorf("%d of %d clients were passed on, want %d to %d", passed.Load(), clients, aSecond, most)
	}
	if f := one(t, vm); !strings.Contains(f.LastError, "refused") {
		t.Errorf("last error %q", f.LastError)
	}

	up.Store(true)
	again := listeners(port, "0.0.0.0")
	again[0].Process = "web[2]"
	vm.Announce(again)
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
}
