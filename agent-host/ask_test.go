package hostagent_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// What this agent asks of a service for its own sake is no client's trouble.
func TestAServiceThatResetsWhatItIsAskedIsNotBrokenByThat(t *testing.T) {
	t.Parallel()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(guestIP, ownnet.FreePort(t))))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1))
			_ = c.SetLinger(0)
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()

	a, g := startAgent(t), newGuest(t)
	g.start()
	g.announce(port)
	add(t, a, g.vm("dev"))
	within(t, a, patience, "the forward", active(0, 1))
	ask := func(connect func(context.Context) (net.Conn, error)) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = c.Write([]byte("hello"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the service was not asked: %v", err)
		}
	}
	ask(func(ctx context.Context) (net.Conn, error) {
		return a.Ask(ctx, events.Event{VM: "dev", Proto: "tcp", Port: port})
	})
	if f := a.Status().VMs[0].Forwards[0]; f.LastError != "" || f.ConnectionsTotal != 0 || f.BytesOut != 0 {
		t.Errorf("%+v", f)
	}
	// A client's counts.
	ask(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", onHost(port))
	})
	within(t, a, patience, "its error", func(vms []status.VM) bool { return vms[0].Forwards[0].LastError != "" })
	for _, e := range []events.Event{{VM: "dev", Proto: "tcp", Port: port + 1}, {VM: "dev", Proto: "unix", Socket: "/run/s"}, {VM: "other", Proto: "tcp", Port: port}} {
		if c, err := a.Ask(t.Context(), e); err == nil {
			t.Errorf("%+v: %v", e, c)
		}
	}
}
