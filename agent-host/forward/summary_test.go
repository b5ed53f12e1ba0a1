package forward_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestASummaryShowsClaimsBeforeWhatIsWell(t *testing.T) {
	taken := []uint16{20250, 20251}
	table := newTable(t, forward.Config{Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
		if slices.Contains(taken, a.Port()) {
			return nil, syscall.EADDRINUSE
		}
		return anyPort(a)
	}})
	vm := table.Add("dev")
	vm.Announce(append(many("hog", 20000, 300), many("nginx", 8080, 1)...))
	for rows, want := range map[int][]uint16{1: {20250}, 2: {20250, 20251}, 3: {8080, 20250, 20251}} {
		shown, more := vm.Summary(rows)
		var got []uint16
		for _, f := range shown {
			got = append(got, f.Port)
		}
		if !slices.Equal(got, want) || more[status.Claim] != max(0, 2-rows) {
			t.Errorf("%d rows: %d, and %v", rows, got, more)
		}
	}
}

func TestASummaryShowsWhatFailsBeforeWhatIsWell(t *testing.T) {
	port := ownnet.FreePort(t)
	table := newTable(t, forward.Config{Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
		if a.Port() == port {
			return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
		}
		return anyPort(a)
	}})
	vm := table.Add("dev")
	vm.SetLink(&serve.Link{
		Path: "vsock", Silent: func() bool { return false },
		Open: func(context.Context, wire.Target, []byte) (relay.Conn, string, error) {
			return nil, "", &wire.AnswerError{Status: wire.AnswerRefused, Reason: "nobody is there"}
		},
	})
	vm.Announce(append(many("hog", int(port), 30), many("nginx", 1100, 1)...))
	if shown, _ := vm.Summary(1); shown[0].Port != 1100 {
		t.Errorf("nothing has failed: %+v", shown)
	}
	if c, err := net.DialTimeout("tcp", addr("127.0.0.1", port), patience); err == nil {
		defer c.Close()
	}
	eventually(t, vm, "it is in the summary", func([]status.Forward) bool {
		shown, _ := vm.Summary(1)
		return shown[0].Port == port && shown[0].LastError != ""
	})
}
