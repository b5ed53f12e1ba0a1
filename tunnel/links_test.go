package tunnel_test

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
)

// TestAGuestAgentWithoutAKeyHasFewLinks makes links as any user of the host may.
func TestAGuestAgentWithoutAKeyHasFewLinks(t *testing.T) {
	g := startGuest(t, tunnel.PathRaw, tunnel.Config{})
	const most = 8
	var links []*tunnel.Link
	for range most {
		l, err := dial(t, g.endpoint, tunnel.Config{})
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, l)
	}
	if _, err := dial(t, g.endpoint, tunnel.Config{}); err == nil || !strings.Contains(err.Error(), "8 links") {
		t.Errorf("one more link: %v", err)
	}
	_ = links[0].Close()
	eventually(t, "room for another", func() bool {
		l, err := dial(t, g.endpoint, tunnel.Config{})
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
	l, err := tunnel.Dial(ctx, tunnel.Endpoint{Scheme: tunnel.SchemeUnix, Path: path}, tunnel.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}
