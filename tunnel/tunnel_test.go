package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// kinds are the ways a stream can go: on a raw connection that is closed
// afterwards, on one that is used again, or in the one connection for all.
var kinds = []string{stream.PathRaw, reused, stream.PathMux}

const reused = "reused"

// eachKind runs a test over each way.
func eachKind(t *testing.T, f func(t *testing.T, l *link)) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			l := startLink(t, startGuest(t, kind, keyed), keyed)
			l.now = kind == reused
			f(t, l)
		})
	}
}

// keyed is a configuration with a key, which what reaches further than ports takes.
var keyed = tunnel.Config{Key: bytes.Repeat([]byte{7}, keyfile.Size)}

// overVsock makes guests listen on AF_VSOCK instead of a unix socket, and be
// reached over vsock loopback. Only a VM of the tests' own sets it: elsewhere
// AF_VSOCK may lead out of the machine.
const overVsock = "RUM_TEST_OVER_VSOCK"

// vsockLoopback is VMADDR_CID_LOCAL of linux/vm_sockets.h.
const vsockLoopback = 1

var vsockPort atomic.Uint32

func init() { vsockPort.Store(5000) }

// guest is a guest agent's end in this process.
type guest struct {
	server   *tunnel.Server
	endpoint endpoint.Endpoint
	stop     func()
	source   *source
}

// source is what a guest announces.
type source struct {
	mu      sync.Mutex
	changed chan struct{}
	now     announce.Announcement
}

func (s *source) set(a announce.Announcement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = a
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *source) get() (announce.Announcement, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.changed
}

func startGuest(t *testing.T, kind string, cfg tunnel.Config) *guest {
	t.Helper()
	return startGuestLogging(t, kind, cfg, testWriter{t})
}

func startGuestLogging(t *testing.T, kind string, cfg tunnel.Config, log io.Writer) *guest {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	g := &guest{source: &source{changed: make(chan struct{})}}
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g.server = &tunnel.Server{Config: cfg, Source: g.source.get}
	at, reached := endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: path}, "unix:"+path
	if kind == stream.PathMux {
		reached = "serial:" + path
	} else if os.Getenv(overVsock) != "" {
		at = endpoint.Endpoint{Scheme: endpoint.SchemeVsock, Port: vsockPort.Add(1)}
		reached = fmt.Sprintf("vsock:%d:%d", vsockLoopback, at.Port)
	}
	l, err := endpoint.Listen(at, []uint32{vsockLoopback}, cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if kind != stream.PathMux {
			if err := g.server.Serve(ctx, l); err != nil {
				t.Errorf("serve: %v", err)
			}
			return
		}
		serveLines(ctx, g.server, l)
	}()
	if g.endpoint, err = endpoint.Parse(reached); err != nil {
		t.Fatal(err)
	}
	g.stop = func() { cancel(); <-done }
	t.Cleanup(g.stop)
	return g
}

// serveLines serves each connection as a line that carries one session.
func serveLines(ctx context.Context, s *tunnel.Server, l net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = s.ServeLine(ctx, conn, true)
	}
}

// patience is how long a test waits for what is to happen.
const patience = 30 * time.Second

// link is a link that runs, and one of the ways to relay clients over it.
type link struct {
	*tunnel.Link
	now    bool // by RelayNow, on raw connections that are used again; otherwise by Open
	shared bool // its connections are streams of a session with another host, which RelayNow cannot use
}

// startLink dials a guest and runs the link until the test ends.
func startLink(t *testing.T, g *guest, cfg tunnel.Config) *link {
	t.Helper()
	cfg.Log = testLog(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	l, err := tunnel.Dial(ctx, g.endpoint, cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, l, func(announce.Announcement) {})
	return &link{Link: l}
}

func run(t *testing.T, l *tunnel.Link, on func(announce.Announcement)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.Run(ctx, on); err != nil {
			t.Logf("link ended: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("a link does not end")
		}
	})
}

// soon returns what comes within the patience of a test.
func soon[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	return waitFor(t, c, patience, what)
}

func waitFor[T any](t *testing.T, c <-chan T, patience time.Duration, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited %v in vain until %s", patience, what)
	}
	return v
}

// service listens on loopback and hands each connection to serve, which can read and write
// for some minutes: no test hangs there.
func service(t *testing.T, serve func(c *net.TCPConn)) wire.Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
			go serve(c.(*net.TCPConn))
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}}
}

// through connects a client to a target through the link, with a relay as a
// forward has one, and returns the client's end.
func through(t *testing.T, l *link, target wire.Target) *net.TCPConn {
	t.Helper()
	return throughWith(t, l, target, nil)
}

// throughWith is through, for a client of which the host agent has read early bytes before
// there was a stream.
func throughWith(t *testing.T, l *link, target wire.Target, early []byte) *net.TCPConn {
	t.Helper()
	done := make(chan struct{})
	ended := func(err error) {
		if err != nil {
			t.Logf("relay: %v", err)
		}
		close(done)
	}
	client, err := l.connect(t.Context(), target, early, ended)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("a relay outlived its connection")
		}
	})
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	return client
}

// connect connects a client that an Acceptor accepts, and relays it.
func (l *link) connect(ctx context.Context, target wire.Target, early []byte, ended func(error)) (*net.TCPConn, error) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	acceptor, err := relay.NewAcceptor(ln)
	if err != nil {
		return nil, err
	}
	defer acceptor.Close()
	accepted := make(chan *relay.Client, 1)
	failed := make(chan error, 1)
	if err := acceptor.Serve(func(c *relay.Client) { accepted <- c }, func(err error) { failed <- err }, nil); err != nil {
		return nil, err
	}
	client, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	var c *relay.Client
	select {
	case c = <-accepted:
	case err := <-failed:
		return nil, fmt.Errorf("accept: %w", err)
	case <-time.After(patience):
		return nil, errors.New("nobody accepts a client")
	}
	if l.now {
		err = l.relayNow(c, target, early, ended)
	} else {
		err = l.openAndRelay(ctx, c, target, early, ended)
	}
	if err != nil {
		c.Abort()
		_ = client.Close()
		return nil, err
	}
	return client.(*net.TCPConn), nil
}

// relayNow relays a client by RelayNow, as soon as the link is ready for it.
func (l *link) relayNow(c *relay.Client, target wire.Target, early []byte, ended func(error)) error {
	for end := time.Now().Add(patience); !l.RelayNow(c, target, early, new(relay.Counters), ended); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("no raw connection is ready for a client")
		}
	}
	return nil
}

// openAndRelay relays a client over a stream of Open.
func (l *link) openAndRelay(ctx context.Context, c *relay.Client, target wire.Target, early []byte, ended func(error)) error {
	s, err := l.Open(ctx, target, early)
	if err != nil {
		return err
	}
	go relay.Relay(c.Conn(), s, new(relay.Counters), ended)
	return nil
}

func echo(c *net.TCPConn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b))
	return len(b), nil
}
