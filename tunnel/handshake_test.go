package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

var (
	keyA = bytes.Repeat([]byte{1}, keyfile.Size)
	keyB = bytes.Repeat([]byte{2}, keyfile.Size)
)

func TestTheKeyIsProvedByBothEnds(t *testing.T) {
	for _, kind := range kinds {
		for _, c := range []struct {
			name        string
			host, guest []byte
			auth        string
			reason      string
		}{
			{"no keys", nil, nil, "none", ""},
			{"same key", keyA, keyA, "psk", ""},
			{"other key", keyA, keyB, "", "the guest agent's key is not the host agent's"},
			{"host only", keyA, nil, "", "the host agent has a key for this guest and the guest agent has none"},
			{"guest only", nil, keyA, "", "the guest agent has a key and the host agent has none for it"},
		} {
			t.Run(kind+"/"+c.name, func(t *testing.T) {
				var logged logbuf.Buffer
				g := startGuestLogging(t, kind, tunnel.Config{Key: c.guest}, &logged)
				l, err := dialLink(t, g.endpoint, tunnel.Config{Key: c.host})
				if c.reason == "" {
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					if got := l.Peer().Auth; got != c.auth {
						t.Fatalf("auth %q, want %q", got, c.auth)
					}
					return
				}
				auth, ok := errors.AsType[*handshake.AuthError](err)
				if !ok || auth.Reason != c.reason {
					t.Fatalf("host: %v, want %q", err, c.reason)
				}
				if kind == stream.PathRaw {
					eventually(t, "the guest to log the reason", func() bool {
						return strings.Contains(logged.String(), c.reason)
					})
				}
			})
		}
	}
}

func TestAKeyOfTheWrongLengthIsRefused(t *testing.T) {
	g := startGuest(t, stream.PathRaw, tunnel.Config{})
	if _, err := dialLink(t, g.endpoint, tunnel.Config{Key: []byte("short")}); err == nil || !strings.Contains(err.Error(), "32") {
		t.Fatalf("err %v, want one that names the length", err)
	}
}

// TestReplayedBytesProveNothing records what a host with the key sends, and sends
// it again.
func TestReplayedBytesProveNothing(t *testing.T) {
	var logged logbuf.Buffer
	g := startGuestLogging(t, stream.PathRaw, tunnel.Config{Key: keyA}, &logged)
	var recorded logbuf.Buffer
	tap := startTap(t, g.endpoint, func(b []byte) []byte { _, _ = recorded.Write(b); return b }, nil)
	l, err := dialLink(t, tap, tunnel.Config{Key: keyA})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()

	conn, err := net.Dial("unix", g.endpoint.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(recorded.String()))
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the guest did not end the connection")
	}
	eventually(t, "a logged reason", func() bool { return strings.Contains(logged.String(), "dropped a connection") })
}

// TestAHandshakeCutAnywhereEndsCleanly cuts what the host sends after each byte.
func TestAHandshakeCutAnywhereEndsCleanly(t *testing.T) {
	g := startGuest(t, stream.PathRaw, tunnel.Config{Key: keyA})
	var recorded logbuf.Buffer
	tap := startTap(t, g.endpoint, func(b []byte) []byte { _, _ = recorded.Write(b); return b }, nil)
	l, err := dialLink(t, tap, tunnel.Config{Key: keyA})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	all := recorded.String()
	for n := 0; n < min(len(all), 200); n += 7 {
		conn, err := net.Dial("unix", g.endpoint.Path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(all[:n]))
		_ = conn.(*net.UnixConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("cut after %d bytes, the connection was not ended", n)
		}
		_ = conn.Close()
	}
	startLink(t, g, tunnel.Config{Key: keyA}) // still served
}

// TestARawConnectionNeedsTheToken forges what opens a stream.
func TestARawConnectionNeedsTheToken(t *testing.T) {
	var logged logbuf.Buffer
	g := startGuestLogging(t, stream.PathRaw, tunnel.Config{}, &logged)
	startLink(t, g, tunnel.Config{})
	for _, token := range [][]byte{nil, make([]byte, 16), make([]byte, 100)} {
		conn, err := net.Dial("unix", g.endpoint.Path)
		if err != nil {
			t.Fatal(err)
		}
		frame := append([]byte("\xffRUM\r\n\x1a\n\x05\x00"), byte(len(token)))
		_, _ = conn.Write(append(frame, token...))
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil {
			t.Fatalf("%d bytes, %v; want the connection closed", n, err)
		}
		_ = conn.Close()
	}
	eventually(t, "a logged reason", func() bool { return strings.Contains(logged.String(), "token of no link") })
}

func TestStaleBytesOnALineAreSkipped(t *testing.T) {
	g := startGuest(t, stream.PathMux, tunnel.Config{})
	banner := []byte("Last login: Thu\r\n\xffRUM\r\n\x1a\n\x02\x00\x05stale\xff\xff")
	first := true
	tap := startTap(t, g.endpoint, func(b []byte) []byte {
		if first {
			first = false
			return append(bytes.Clone(banner), b...)
		}
		return b
	}, nil)
	tap.Scheme = endpoint.SchemeSerial
	l, err := dialLink(t, tap, tunnel.Config{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, l, func(announce.Announcement) {})
	c := through(t, &link{Link: l}, service(t, echo))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func dialLink(t *testing.T, e endpoint.Endpoint, cfg tunnel.Config) (*tunnel.Link, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return tunnel.Dial(ctx, e, cfg)
}

// startTap forwards connections to a unix endpoint and lets up and down change
// what passes; nil leaves it alone.
func startTap(t *testing.T, e endpoint.Endpoint, up, down func([]byte) []byte) endpoint.Endpoint {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tap.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", e.Path)
			if err != nil {
				_ = in.Close()
				continue
			}
			conns.Go(func() { pass(out, in, up) })
			conns.Go(func() { pass(in, out, down) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); conns.Wait() })
	return endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: path}
}

func pass(dst, src net.Conn, change func([]byte) []byte) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 4096)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			b := buf[:n]
			if change != nil {
				b = change(b)
			}
			if _, err := dst.Write(b); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
