package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

// endpointKinds are all kinds of endpoints. A new one is held to every promise by a line
// here. start begins a guest agent, a process of its own that has the key of [keyed]
// (without one it bounds the connections of a host by its descriptors).
var endpointKinds = []struct {
	name  string
	inVM  bool // only in a VM of the tests' own
	start func(t *testing.T) agent
}{
	{"unix", false, startUnix},
	{"hybrid", false, startHybrid},
	{"serial", false, startSerial},
	{"exec", false, startExec},
	{"ssh", false, startRemote},
	{"vsock", true, startVsock},
}

// agent is a guest agent: how the host reaches it, what kills it, and how many connections
// it has accepted; nil where the endpoint has one only.
type agent struct {
	at       string
	remote   endpoint.Endpoint // in the place of at, where another host is asked
	kill     func()
	accepted func() int64
}

func startUnix(t *testing.T) agent {
	at := "unix:" + filepath.Join(t.TempDir(), "agent.sock")
	c := startChild(t, "guest", stream.PathRaw, at, withKey)
	return agent{at: at, kill: c.kill, accepted: c.accepted.Load}
}

func startHybrid(t *testing.T) agent {
	a := startUnix(t)
	a.at = startVMM(t, strings.TrimPrefix(a.at, "unix:")).String()
	return a
}

func startSerial(t *testing.T) agent {
	path := filepath.Join(t.TempDir(), "port.sock")
	return agent{at: "serial:" + path, kill: startChild(t, "guest", stream.PathMux, "unix:"+path, withKey).kill}
}

func startExec(t *testing.T) agent {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pid := filepath.Join(t.TempDir(), "pid")
	at := fmt.Sprintf("exec:echo $$ >%s; %s=%s exec %s", pid, asStdioGuest, withKey, self)
	return agent{at: at, kill: func() {
		b, err := os.ReadFile(pid)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(n, syscall.SIGKILL)
	}}
}

// startRemote has a session stand for ssh and the relay behind it: each of its streams is joined to a connection to the agent.
func startRemote(t *testing.T) agent {
	a := startUnix(t)
	socket := strings.TrimPrefix(a.at, "unix:")
	here, there := net.Pipe()
	log := slog.New(slog.DiscardHandler)
	limits := mux.Limits{Waiting: 64 << 20, Held: 192 << 20, Thin: budget.Limits{Share: 1, Burst: time.Hour}}
	work := budget.Limits{Share: 1, Burst: time.Hour}
	far, err := mux.NewWithResets(there, false, limits, budget.New(work), log, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	near, err := mux.NewWithResets(here, true, limits, budget.New(work), log, func(int) error { return errors.New("a relay opens none") })
	if err == nil {
		_, err = near.Open() // for lists
	}
	if err == nil {
		_, err = far.Accept(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	var streams sync.WaitGroup
	streams.Go(func() {
		for {
			c, err := far.Accept(context.Background())
			if err != nil {
				return
			}
			streams.Go(func() {
				to, err := net.Dial("unix", socket)
				if err != nil {
					c.Abort()
					return
				}
				relay.Relay(relay.Unix(to.(*net.UnixConn)), c, new(relay.Counters), func(error) {})
			})
		}
	})
	t.Cleanup(func() { _ = near.Close(); _ = far.Close(); streams.Wait() })
	a.at, a.remote = "", endpoint.Remote("server", endpoint.SchemeUnix, session{near})
	return a
}

// session dials as a host agent does over the session with another host.
type session struct{ *mux.Session }

func (s session) Dial(ctx context.Context) (net.Conn, error) { return s.OpenWithin(ctx) }

func startVsock(t *testing.T) agent {
	port := vsockPort.Add(1)
	c := startChild(t, "guest", stream.PathRaw, fmt.Sprintf("vsock:%d", port), withKey)
	return agent{at: fmt.Sprintf("vsock:%d:%d", vsockLoopback, port), kill: c.kill, accepted: c.accepted.Load}
}

func linkTo(t *testing.T, a agent) *link {
	t.Helper()
	e := a.remote
	if a.at != "" {
		var err error
		if e, err = endpoint.Parse(a.at); err != nil {
			t.Fatal(err)
		}
	}
	if e.Many() != (a.accepted != nil) {
		t.Fatalf("%s: it allows many connections, or one: the other is told of how many it has", e)
	}
	l := startLink(t, &guest{endpoint: e}, keyed)
	l.shared = e.Many() && !e.Sockets()
	return l
}
