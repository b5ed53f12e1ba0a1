package hostagent_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	goleak.VerifyTestMain(m)
}

const patience = 30 * time.Second

var quiet = slog.New(slog.DiscardHandler)

// startAgent runs an agent until the test ends.
func startAgent(t *testing.T) *hostagent.Agent {
	t.Helper()
	return startAgentWith(t, hostagent.Config{Version: "test", Log: quiet})
}

func startAgentWith(t *testing.T, config hostagent.Config) *hostagent.Agent {
	t.Helper()
	a := hostagent.New(config)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("the agent does not end")
		}
	})
	return a
}

// guest is a guest agent in this process. What it announces is on 127.0.0.2,
// so that the host's 127.0.0.1 has the same ports free.
type guest struct {
	t        *testing.T
	path     string
	version  string
	packager string
	key      []byte
	itself   func(wire.Target) (relay.Conn, error) // what it does besides; nil for nothing

	mu      sync.Mutex
	now     announce.Announcement
	changed chan struct{}
	stop    func() // ends the agent, not what it announces
}

func newGuest(t *testing.T) *guest {
	g := &guest{t: t, path: filepath.Join(t.TempDir(), "s"), version: "guest-test", changed: make(chan struct{})}
	g.now.Generation = 1 // it has looked, and nothing listens
	t.Cleanup(func() {
		if g.stop != nil {
			g.stop()
		}
	})
	return g
}

func (g *guest) start() {
	g.t.Helper()
	s := &tunnel.Server{Config: tunnel.Config{AgentVersion: g.version, Packager: g.packager, Key: g.key, Log: quiet}, Itself: g.itself, Source: func() (announce.Announcement, <-chan struct{}) {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.now, g.changed
	}}
	l, err := endpoint.Listen(endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: g.path}, nil, quiet)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			g.t.Errorf("guest: %v", err)
		}
	})
}

func (g *guest) announce(ports ...uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now.Generation++
	g.now.Listeners = nil
	for _, p := range ports {
		g.now.Listeners = append(g.now.Listeners, portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(guestIP, p)})
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

var guestIP = netip.MustParseAddr("127.0.0.2")

func (g *guest) vm(name string) hostagent.VM {
	return hostagent.VM{Name: name, Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: g.path}}
}

// echo serves on a port of the guest that is free on the host.
func echo(t *testing.T) (port uint16) {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(guestIP, ownnet.FreePort(t))))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func onHost(port uint16) string {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port).String()
}

func roundTrip(port uint16) error {
	c, err := net.DialTimeout("tcp", onHost(port), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 5))
	return err
}

// within polls until ok or fails with what the agent says.
func within(t *testing.T, a *hostagent.Agent, limit time.Duration, what string, ok func([]status.VM) bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		st := a.Status()
		if ok(st.VMs) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %+v", what, limit, st.VMs)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func add(t *testing.T, a *hostagent.Agent, vm hostagent.VM) {
	t.Helper()
	if err := a.AddVM(vm); err != nil {
		t.Fatal(err)
	}
}

// active reports that the i-th VM has n active forwards.
func active(i, n int) func([]status.VM) bool {
	return func(vms []status.VM) bool {
		count := 0
		for _, f := range vms[i].Forwards {
			if f.State == status.Active {
				count++
			}
		}
		return count == n
	}
}
