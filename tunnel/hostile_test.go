package tunnel_test

import (
	"context"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

func TestGarbageEndsOnlyItsOwnConnection(t *testing.T) {
	var logged logbuf.Buffer
	g := startGuestLogging(t, stream.PathRaw, tunnel.Config{}, &logged)
	c := through(t, startLink(t, g, tunnel.Config{}), service(t, echo))
	noise := rand.NewChaCha8([32]byte{3})
	for _, start := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\xffRUM\r\n\x1a\n", "\xffRUM\r\n\x1a\n\x01\x00\x02ab", "\x00\x00\x00\x00"} {
		garbage := make([]byte, 4096)
		_, _ = noise.Read(garbage)
		conn, err := net.Dial("unix", g.endpoint.Path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(append([]byte(start), garbage...))
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		for buf := make([]byte, 4096); ; {
			if _, err := conn.Read(buf); err != nil {
				if strings.Contains(err.Error(), "timeout") {
					t.Fatalf("garbage that starts with %q was not dropped", start)
				}
				break
			}
		}
		_ = conn.Close()
	}
	eventually(t, "a logged reason", func() bool { return strings.Contains(logged.String(), "not the protocol of a rum agent") })
	if _, err := c.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
}

func TestAGuestThatTalksGarbageIsAnErrorWithAReason(t *testing.T) {
	for _, garbage := range []string{"HTTP/1.1 400 Bad Request\r\n\r\n", "\xffRUM\r\n\x1a\n\x04\x00\x00", "\xffRUM\r\n\x1a\n\x02\x00\x00"} {
		path := filepath.Join(t.TempDir(), "fake.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = c.Write([]byte(garbage))
				_ = c.(*net.UnixConn).CloseWrite()
				_, _ = c.Read(make([]byte, 4096))
				_ = c.Close()
			}
		}()
		_, err = dialLink(t, endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: path}, tunnel.Config{})
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("%q: %v, want an error that names the endpoint", garbage, err)
		}
		_ = l.Close()
	}
}

// TestAGuestThatGoesMadNeverHurtsTheHost flips bytes of what a real guest says
// after the handshake. Whatever comes of it, the host's link ends or goes on, and
// nothing panics, hangs or is left behind.
func TestAGuestThatGoesMadNeverHurtsTheHost(t *testing.T) {
	for seed := range uint64(60) {
		g := startGuest(t, stream.PathMux, tunnel.Config{})
		dice := rand.New(rand.NewPCG(seed, 1))
		after := 300 + 64<<10 + dice.IntN(2000) // past the flush and the handshake
		seen := 0
		tap := startTap(t, g.endpoint, nil, func(b []byte) []byte {
			for i := range b {
				if seen++; seen > after && dice.IntN(20) == 0 {
					b[i] ^= byte(1 + dice.IntN(255))
				}
			}
			return b
		})
		tap.Scheme = endpoint.SchemeSerial
		l, err := dialLink(t, tap, tunnel.Config{})
		if err != nil {
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx, func(announce.Announcement) {}) }()
		for n := range 50 {
			g.source.set(announce.Announcement{Generation: uint64(n + 1), Listeners: []portlist.Listener{
				listener("127.0.0.1:80"), {Proto: "udp", Addr: listener("0.0.0.0:53").Addr, Process: strings.Repeat("x", n)},
			}})
			if s, err := l.Open(ctx, refused(t), nil); err == nil {
				defer s.Abort()
			}
		}
		cancel()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatalf("seed %d: the link did not end", seed)
		}
		g.stop()
	}
}
