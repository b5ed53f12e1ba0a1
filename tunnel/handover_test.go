package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// whole is a connection that is handed over.
type whole interface {
	net.Conn
	CloseWrite() error
}

func handOver(t *testing.T, l *tunnel.Link, target wire.Target) whole {
	t.Helper()
	c, err := l.HandOver(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(whole)
}

// linkUntil is a link that ends when it is told to.
func linkUntil(t *testing.T, g *guest, cfg tunnel.Config) (l *tunnel.Link, end func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := tunnel.Dial(ctx, g.endpoint, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.Run(ctx, func(announce.Announcement) {})
	}()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	return l, end
}

func TestAConnectionThatIsHandedOverHasItsEndsByItself(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathRaw, keyed), keyed)
	c := handOver(t, l.Link, service(t, func(c *net.TCPConn) {
		defer c.Close()
		n, err := io.Copy(io.Discard, c)
		fmt.Fprintf(c, "%d bytes, %v", n, err)
	}))
	for range 100 {
		if _, err := c.Write(make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "1000000 bytes, <nil>" {
		t.Errorf("who ends first reads %q, %v", got, err)
	}

	heard := make(chan int64, 1)
	c = handOver(t, l.Link, service(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "go on")
		_ = c.CloseWrite()
		n, _ := io.Copy(io.Discard, c)
		heard <- n
	}))
	if got, err := io.ReadAll(c); err != nil || string(got) != "go on" {
		t.Errorf("of a service that ends first %q was read, %v", got, err)
	}
	_, _ = c.Write(make([]byte, 100_000))
	_ = c.Close()
	if n := soon(t, heard, "the service reads the end"); n != 100_000 {
		t.Errorf("a service that had ended first got %d bytes", n)
	}
}

// Neither who made it nor anything of the link has a part in it any more.
func TestAConnectionThatIsHandedOverOutlivesTheLinkAndNotTheServer(t *testing.T) {
	g := startGuest(t, stream.PathRaw, keyed)
	l, end := linkUntil(t, g, keyed)
	reset := make(chan error, 1)
	c := handOver(t, l, service(t, func(c *net.TCPConn) {
		_, err := io.Copy(c, c)
		reset <- err
	}))
	end()
	eventually(t, "the guest has no link", func() bool { return len(g.server.Hosts()) == 0 })
	got := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v after the end of the link", got, err)
	}
	g.stop()
	if err := soon(t, reset, "the service is reset"); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the service read %v as the guest agent ended, want a reset", err)
	}
	if n, err := c.Read(got); err == nil {
		t.Errorf("%d bytes came after the guest agent had ended", n)
	}
}

func TestWhatCannotBeConnectedToIsNotHandedOver(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{})
	for addr, want := range map[string]wire.AnswerStatus{
		"127.0.0.1:1":    wire.AnswerRefused,
		"192.0.2.1:2000": wire.AnswerDenied, // not the guest's
	} {
		c, err := l.HandOver(t.Context(), wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort(addr)}})
		if answer, ok := errors.AsType[*wire.AnswerError](err); c != nil || !ok || answer.Status != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
	c, err := l.HandOver(t.Context(), wire.UnixTarget("/run/app.sock"))
	if answer, ok := errors.AsType[*wire.AnswerError](err); c != nil || !ok || answer.Status != wire.AnswerDenied {
		t.Errorf("a unix socket without a key: %v", err)
	}
}

func TestNothingIsHandedOverWhereThereIsNothingToGive(t *testing.T) {
	target := service(t, echo)
	one := startLink(t, startGuest(t, stream.PathMux, keyed), keyed)
	if c, err := one.HandOver(t.Context(), target); c != nil || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of one connection for all: %v", err)
	}
}

// Any user of the host may be one without a key, and what he has made outlives his links.
func TestConnectionsThatWereHandedOverAreAmongThoseThatHostsMayHave(t *testing.T) {
	g := startGuest(t, stream.PathRaw, tunnel.Config{})
	target := service(t, echo)
	const most = 512
	limitDescriptors(t, 8*most)
	refused := 0
	for range 2 {
		l, end := linkUntil(t, g, tunnel.Config{})
		for range most/2 + 32 {
			c, err := l.HandOver(t.Context(), target)
			if err != nil {
				refused++
				continue
			}
			defer c.Close()
		}
		end()
	}
	if refused < 32 || refused > 80 { // idle connections count too
		t.Errorf("%d of %d connections are refused", refused, most+64)
	}
	l, _ := linkUntil(t, g, tunnel.Config{})
	if c, err := l.HandOver(t.Context(), target); err == nil {
		_ = c.Close()
		t.Error("a host has more after its links have ended")
	}
}
