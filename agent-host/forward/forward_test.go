package forward_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of these tests.
const patience = 30 * time.Second

func newTable(t *testing.T, cfg forward.Config) *forward.Table {
	t.Helper()
	table := forward.New(cfg)
	t.Cleanup(table.Close)
	return table
}

// clock is a table's time, which a test can let pass.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) pass(d time.Duration) { c.ahead.Add(int64(d)) }

// settle waits until the table has seen that a program of the host left an address,
// and lets the time pass in which that stays free.
func (c *clock) settle(t *testing.T, vm *forward.VM, address string) {
	t.Helper()
	eventually(t, vm, "seen to be free", func(all []status.Forward) bool {
		return slices.ContainsFunc(all, func(f status.Forward) bool { return strings.Contains(f.Reason, address+" was left by") })
	})
	c.pass(3 * time.Second)
}

func addr(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// listeners are what a guest announces for a port.
func listeners(port uint16, hosts ...string) []portlist.Listener {
	var out []portlist.Listener
	for _, h := range hosts {
		out = append(out, portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.MustParseAddr(h), port)})
	}
	return out
}

// echo serves connections on a loopback address of its own, in place of a
// guest, until the test ends.
func echo(t *testing.T, address string) string {
	t.Helper()
	return service(t, address, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

// service listens in place of a guest until the test ends. It closes each
// connection when serve has returned.
func service(t *testing.T, address string, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// linkTo is a link whose every stream ends at a TCP server.
func linkTo(address string) *serve.Link {
	return &serve.Link{
		Path:   "vsock",
		Silent: func() bool { return false },
		Open: func(ctx context.Context, _ wire.Target, early []byte) (relay.Conn, string, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, "", err
			}
			_, err = c.Write(early)
			return relay.TCP(c.(*net.TCPConn)), "vsock", err
		},
	}
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// dialForReset is dial and then wantReset, for a reset that may come before
// the dial has returned.
func dialForReset(t *testing.T, address string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if errors.Is(err, unix.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	wantReset(t, c)
}

func roundTrip(t *testing.T, c net.Conn) {
	t.Helper()
	const text = "hello"
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v", got, err)
	}
}

// wantReset reads until the connection is reset.
func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.ReadAll(c); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("want a reset, got %v", err)
	}
}

func wantClosed(t *testing.T, address string) {
	t.Helper()
	if c, err := net.DialTimeout("tcp", address, patience); err == nil {
		c.Close()
		t.Errorf("%s answers", address)
	}
}

// one returns the VM's only forward.
func one(t *testing.T, vm *forward.VM) status.Forward {
	t.Helper()
	all := vm.Status()
	if len(all) != 1 {
		t.Fatalf("want one forward, got %+v", all)
	}
	return all[0]
}

// eventually polls until ok, or fails with what the VM says.
func eventually(t *testing.T, vm *forward.VM, what string, ok func([]status.Forward) bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok(vm.Status()) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %+v", what, patience, vm.Status())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func inState(state string) func([]status.Forward) bool {
	return func(all []status.Forward) bool { return len(all) == 1 && all[0].State == state }
}
