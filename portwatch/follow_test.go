package portwatch_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf/link"
	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/logbuf"
)

const (
	// soon is how late an event may come on a machine that is busy with other tests;
	// a look at everything is further away.
	soon = 5 * time.Second
	// never is a time between two looks at everything that no test waits for.
	never = time.Hour
	ring  = 64 << 10
)

// run runs a Watcher until the test ends.
func run(t *testing.T, w *portwatch.Watcher) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// follow runs a Watcher with these sources, and waits for its first look.
func follow(t *testing.T, safety time.Duration, kernels ...*portwatch.Kernel) (*portwatch.Watcher, *logbuf.Buffer) {
	t.Helper()
	log := new(logbuf.Buffer)
	w := portwatch.WatchFrom(new(portwatch.Scanner), safety, slog.New(slog.NewTextHandler(log, nil)), kernels...)
	run(t, w)
	until(t, w, "the first look", func(s portwatch.State) bool { return s.Generation > 0 })
	return w, log
}

// until waits for a state.
func until(t *testing.T, w *portwatch.Watcher, what string, is func(portwatch.State) bool) portwatch.State {
	t.Helper()
	limit := time.After(soon)
	for {
		state, changed := w.State()
		if is(state) {
			return state
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("waited in vain for %s: %+v", what, state)
		}
	}
}

func has(proto string, addr netip.AddrPort) func(portwatch.State) bool {
	return func(s portwatch.State) bool { return index(s, proto, addr) >= 0 }
}

func hasNot(proto string, addr netip.AddrPort) func(portwatch.State) bool {
	return func(s portwatch.State) bool { return index(s, proto, addr) < 0 }
}

func index(s portwatch.State, proto string, addr netip.AddrPort) int {
	return slices.IndexFunc(s.Listeners, func(l portlist.Listener) bool { return l.Proto == proto && l.Addr == addr })
}

func openCgroup(t *testing.T, cgroup string) *portwatch.Kernel {
	t.Helper()
	k, err := portwatch.OpenCgroup(cgroup, ring)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openTracepoint(t *testing.T) *portwatch.Kernel {
	t.Helper()
	// EBUSY is that somebody has mounted it there before.
	if err := unix.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, ""); err != nil && err != unix.EBUSY {
		t.Fatal(err)
	}
	k, err := portwatch.OpenTracepoint()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// detachAll takes the programs from a cgroup, as another program could.
func detachAll(t *testing.T, cgroup string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(cgroup, &st); err != nil {
		t.Fatal(err)
	}
	detached := 0
	var all link.Iterator
	defer all.Close()
	for all.Next() {
		info, err := all.Link.Info()
		if err != nil {
			continue // not every kind of link knows
		}
		if c := info.Cgroup(); c == nil || c.CgroupId != st.Ino {
			continue
		}
		if err := all.Link.Detach(); err != nil {
			t.Fatal(err)
		}
		detached++
	}
	if err := all.Err(); err != nil || detached == 0 {
		t.Fatalf("%d programs detached, %v", detached, err)
	}
}

// closer opens a socket and returns what closes it.
type opener struct {
	network, addr string
}

func (o opener) proto() string { return o.network[:3] }

func (o opener) open(t *testing.T) (netip.AddrPort, func() error) {
	t.Helper()
	if o.proto() == "udp" {
		c, err := net.ListenPacket(o.network, o.addr)
		if err != nil {
			t.Fatal(err)
		}
		return unmapped(c.LocalAddr().String()), c.Close
	}
	l, err := net.Listen(o.network, o.addr)
	if err != nil {
		t.Fatal(err)
	}
	return unmapped(l.Addr().String()), l.Close
}

var tcpSockets = []opener{
	{"tcp4", "127.0.0.1:8080"}, {"tcp4", "0.0.0.0:0"}, {"tcp6", "[::1]:8080"}, {"tcp6", "[::]:0"}, {"tcp", ":8081"},
}

var udpSockets = []opener{
	{"udp4", "127.0.0.1:5201"}, {"udp4", "0.0.0.0:0"}, {"udp6", "[::1]:5201"}, {"udp6", "[::]:0"}, {"udp", ":60001"},
}

// TestListenersThatShareAnAddressOrAreAtAnUnusualOneAreSeen: the kernel finds neither by the cookie of an event alone.
func TestListenersThatShareAnAddressOrAreAtAnUnusualOneAreSeen(t *testing.T) {
	alone(t, func(cgroup string) {
		w, _ := follow(t, never, openCgroup(t, cgroup))
		shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			err = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			return err
		}}
		listen := func(addr string) net.Listener {
			l, err := shared.Listen(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			return l
		}
		unusual := netip.MustParseAddrPort("127.9.9.9:8080")
		listen(unusual.String())
		until(t, w, "the one at an unusual address", has("tcp", unusual))

		addr := netip.MustParseAddrPort("127.0.0.1:8080")
		all := []net.Listener{listen(addr.String())}
		until(t, w, "the first of those that share an address", has("tcp", addr))
		for range 7 {
			all = append(all, listen(addr.String()))
		}
		for i, l := range all {
			if s, _ := w.State(); index(s, "tcp", addr) < 0 {
				t.Fatalf("%d of %d are left, and none is seen", len(all)-i, len(all))
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			// Another that comes and goes, so that the events of this one have been taken in.
			other, end := opener{"tcp4", "127.0.0.1:8081"}.open(t)
			until(t, w, "another", has("tcp", other))
			if err := end(); err != nil {
				t.Fatal(err)
			}
			until(t, w, "another to go", hasNot("tcp", other))
		}
		until(t, w, "the last of those that share an address to go", hasNot("tcp", addr))
		until(t, w, "the one at an unusual address to stay", has("tcp", unusual))
	})
}
