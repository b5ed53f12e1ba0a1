package tunnel_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

// TestAGuestAgentWithoutAKeyHasFewLinks makes links as any user of the host may.
func TestAGuestAgentWithoutAKeyHasFewLinks(t *testing.T) {
	g := startGuest(t, stream.PathRaw, tunnel.Config{})
	const most = 8
	var links []*tunnel.Link
	for range most {
		l, err := dialLink(t, g.endpoint, tunnel.Config{})
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, l)
	}
	if _, err := dialLink(t, g.endpoint, tunnel.Config{}); err == nil || !strings.Contains(err.Error(), "8 links") {
		t.Errorf("one more link: %v", err)
	}
	_ = links[0].Close()
	eventually(t, "room for another", func() bool {
		l, err := dialLink(t, g.endpoint, tunnel.Config{})
		if err == nil {
			links[0] = l
		}
		return err == nil
	})
	for _, l := range links {
		_ = l.Close()
	}
}

// Any user of the host can make connections that say nothing.
func TestConnectionsThatSayNothingMakeRoomForAHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &tunnel.Server{Source: (&source{changed: make(chan struct{})}).get}
	serving, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(serving, listener) }()
	defer func() { stop(); <-done }()
	for range 600 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := tunnel.Dial(ctx, endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: path}, tunnel.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// What is connected without a key is bounded.
func TestHostsWithoutAKeyHaveABoundedNumberOfConnections(t *testing.T) {
	g := startGuest(t, stream.PathRaw, tunnel.Config{})
	l, err := dialLink(t, g.endpoint, tunnel.Config{})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = l.Run(t.Context(), func(announce.Announcement) {}) }()
	target := service(t, echo)
	const most = 512
	limitDescriptors(t, 8*most)
	refused := 0
	for range most + 64 {
		s, err := l.Open(t.Context(), target, nil)
		if err != nil {
			refused++
			continue
		}
		defer s.Abort()
		_ = s.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = s.Write([]byte("x"))
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			refused++
		}
	}
	if refused < 32 || refused > 80 { // idle connections count too
		t.Errorf("%d of %d connections are refused", refused, most+64)
	}
}

// limitDescriptors has this process have no more of them until the test ends.
func limitDescriptors(t *testing.T, most uint64) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: most, Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
}
