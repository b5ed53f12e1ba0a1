package tunnel

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// TestALinkThatDoesNotStartServesNoRawConnection plays a host that shakes hands, makes raw
// connections with requests on them, and goes without a control stream.
func TestALinkThatDoesNotStartServesNoRawConnection(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8)) // more goroutines at a time between two lines
	service, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served atomic.Int32
	var running sync.WaitGroup
	defer running.Wait()
	defer service.Close()
	running.Go(func() {
		for {
			c, err := service.Accept()
			if err != nil {
				return
			}
			served.Add(1)
			_ = c.Close()
		}
	})
	at := service.Addr().(*net.TCPAddr).AddrPort()
	key := make([]byte, keyfile.Size)
	s := &Server{Config: Config{Key: key}, Source: func() (announce.Announcement, <-chan struct{}) {
		return announce.Announcement{}, make(chan struct{})
	}}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	running.Go(func() { _ = s.Serve(ctx, l) })
	dial := func() net.Conn {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	}
	for range 10 {
		c := dial()
		a, err := handshake.Host(c, false, key)
		if err != nil {
			t.Fatal(err)
		}
		session, err := mux.New(c, true, linkLimits, budget.New(budget.Link), slog.New(slog.DiscardHandler), func(int) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		var raws []net.Conn
		for i := range 800 {
			raw := dial()
			request := wire.OpenRequest{ID: uint64(i + 1), Target: wire.Target{Network: wire.NetworkTCP, Addrs: []netip.AddrPort{at}}, Reuse: true}
			b, err := request.Append(wire.AppendFrame(nil, wire.FrameRaw, a.Token[:]))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := raw.Write(b); err != nil {
				t.Fatal(err)
			}
			raws = append(raws, raw)
		}
		_ = session.Close()
		for _, raw := range raws {
			_, _ = io.Copy(io.Discard, raw) // until it is closed
			_ = raw.Close()
		}
	}
	if n := served.Load(); n > 0 {
		t.Errorf("%d connections were served", n)
	}
}
