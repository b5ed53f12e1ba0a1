package tunnel_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

// busyService listens and accepts nothing, and its backlog is full. accept has it
// serve as others do.
func busyService(t *testing.T) (target wire.Target, accept func(serve func(net.Conn))) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil { // room for one
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	accept = func(serve func(net.Conn)) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go serve(c)
		}
	}
	return wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}}, accept
}

// The service accepts after the ten seconds that were the limit once; the kernel
// asks again when it has waited for as long again.
func TestAFullBacklogIsWaitedForAsTheKernelWould(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			l := startLink(t, startGuest(t, kind, tunnel.Config{}), tunnel.Config{})
			target, accept := busyService(t)
			timer := time.AfterFunc(10500*time.Millisecond, func() {
				accept(func(c net.Conn) { _, _ = c.Write([]byte("hello")) })
			})
			t.Cleanup(func() { timer.Stop() })
			client := through(t, l, target)
			got := make([]byte, 5)
			if _, err := client.Read(got); err != nil || string(got) != "hello" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestNobodyDialsForAClientThatHasGone(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		target, _ := busyService(t)
		client := through(t, l, target)
		eventually(t, "the guest dials", func() bool { return dials(t, target) == 1 })
		_ = client.SetLinger(0)
		_ = client.Close()
		eventually(t, "it dials no more", func() bool { return dials(t, target) == 0 })
	})
}

// dials counts the connections to a target that are not there yet.
func dials(t *testing.T, target wire.Target) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const synSent = "02"
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, fmt.Sprintf(":%04X %s ", target.Addrs[0].Port(), synSent)) {
			n++
		}
	}
	return n
}

func TestDialsThatWaitAreBounded(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathMux, tunnel.Config{}), tunnel.Config{})
	target, _ := busyService(t)
	for range dial.MaxPending {
		s, err := l.Open(t.Context(), target, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abort()
	}
	eventually(t, "all dial", func() bool { return dials(t, target) == dial.MaxPending })
	s, err := l.Open(t.Context(), target, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Abort()
	_ = s.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := s.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "do not accept") {
		t.Errorf("one more: %v", err)
	}
}
