package tunnel_test

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// connectNow connects a client that RelayNow relays, or Open where connections are no sockets; done gets how that ended.
func connectNow(t *testing.T, l *link, target wire.Target, done chan<- error) *net.TCPConn {
	t.Helper()
	now := link{Link: l.Link, now: !l.shared}
	c, err := now.connect(t.Context(), target, nil, func(err error) { done <- err })
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// exchange sends a request through the link, with its end, and reads the reply.
func exchange(t *testing.T, l *link, target wire.Target, request []byte) []byte {
	t.Helper()
	done := make(chan error, 1)
	c := connectNow(t, l, target, done)
	defer c.Close()
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(c)
	if ended := soon(t, done, "the stream has ended"); err != nil || ended != nil {
		t.Fatalf("the client sees %v after %d bytes; the stream ended with %v", err, len(reply), ended)
	}
	return reply
}

// countingTap passes connections on to a guest and counts them.
func countingTap(t *testing.T, e endpoint.Endpoint) (endpoint.Endpoint, *atomic.Int32) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "count.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var count atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			out, err := net.Dial("unix", e.Path)
			if err != nil {
				_ = in.Close()
				continue
			}
			go pass(out, in, nil)
			go pass(in, out, nil)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: path}, &count
}

func TestRawConnectionsAreUsedAgain(t *testing.T) {
	g := startGuest(t, stream.PathRaw, tunnel.Config{})
	tap, count := countingTap(t, g.endpoint)
	g.endpoint = tap
	l := startLink(t, g, tunnel.Config{})
	target := service(t, func(c *net.TCPConn) {
		defer c.Close()
		all, _ := io.ReadAll(c)
		_, _ = c.Write(all)
	})
	for n := range 100 {
		request := bytes.Repeat([]byte{byte(n)}, n*100)
		if reply := exchange(t, l, target, request); !bytes.Equal(reply, request) {
			t.Fatalf("stream %d: %d bytes came back, %d were sent, or others", n, len(reply), len(request))
		}
	}
	if n := count.Load(); n > 30 {
		t.Errorf("%d connections to the guest for 100 streams in turn", n)
	}
}

// TestAConnectionOfAStreamThatWasResetIsNotUsedAgain resets streams at either end,
// between others, none of which may see anything of it.
func TestAConnectionOfAStreamThatWasResetIsNotUsedAgain(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{})
	echoAll := service(t, func(c *net.TCPConn) {
		defer c.Close()
		all, _ := io.ReadAll(c)
		_, _ = c.Write(all)
	})
	resets := service(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("half a rep"))
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
		_ = c.Close()
	})
	for n := range 20 {
		done := make(chan error, 1)
		c := connectNow(t, l, resets, done)
		if n%2 == 0 {
			_, _ = c.Write([]byte("x"))
			wantReset(t, c)
		} else {
			_, _ = c.Write([]byte("unread"))
			_ = c.SetLinger(0)
			_ = c.Close()
		}
		if err := soon(t, done, "the stream has ended"); err == nil {
			t.Fatal("a reset was taken for a clean end")
		}
		request := bytes.Repeat([]byte{byte(n)}, 70_000)
		if reply := exchange(t, l, echoAll, request); !bytes.Equal(reply, request) {
			t.Fatalf("after reset %d: %d bytes came back, or others", n, len(reply))
		}
	}
}

func TestALargeTransferLeavesTheConnectionAtItsEnd(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{})
	target := service(t, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	for range 4 {
		request := randomBytes(4 << 20)
		done := make(chan error, 1)
		c := connectNow(t, l, target, done)
		go func() {
			_, _ = c.Write(request)
			_ = c.CloseWrite()
		}()
		reply, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(reply, request) {
			t.Fatalf("%d of %d bytes came back, or others: %v", len(reply), len(request), err)
		}
		_ = c.Close()
		if err := soon(t, done, "the stream has ended"); err != nil {
			t.Fatal(err)
		}
	}
}
