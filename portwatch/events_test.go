package portwatch_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
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

func TestEachSourceTellsOfSocketsThatComeAndGo(t *testing.T) {
	seen := func(t *testing.T, w *portwatch.Watcher, sockets []opener) {
		for _, s := range sockets {
			addr, closeIt := s.open(t)
			until(t, w, fmt.Sprintf("%v to come", s), has(s.proto(), addr))
			if err := closeIt(); err != nil {
				t.Fatal(err)
			}
			until(t, w, fmt.Sprintf("%v to go", s), hasNot(s.proto(), addr))
		}
	}
	t.Run("cgroup", func(t *testing.T) {
		alone(t, func(cgroup string) {
			w, _ := follow(t, never, openCgroup(t, cgroup))
			seen(t, w, slices.Concat(tcpSockets, udpSockets))
			if s, _ := w.State(); s.Sources != (portwatch.Sources{TCP: "ebpf", UDP: "ebpf"}) {
				t.Errorf("the sources are %v", s.Sources)
			}
		})
	})
	t.Run("tracepoint", func(t *testing.T) {
		alone(t, func(string) {
			w, _ := follow(t, never, openTracepoint(t))
			seen(t, w, slices.Concat(tcpSockets, udpSockets))
			if s, _ := w.State(); s.Sources != (portwatch.Sources{TCP: "tracepoint", UDP: "poll"}) {
				t.Errorf("the sources are %v", s.Sources)
			}
		})
	})
	t.Run("poll", func(t *testing.T) {
		alone(t, func(string) {
			w, _ := follow(t, never, nil)
			seen(t, w, slices.Concat(tcpSockets, udpSockets))
			if s, _ := w.State(); s.Sources != (portwatch.Sources{TCP: "poll", UDP: "poll"}) {
				t.Errorf("the sources are %v", s.Sources)
			}
		})
	})
}

func TestTheProcessFollowsItsListener(t *testing.T) {
	alone(t, func(cgroup string) {
		w, _ := follow(t, never, openCgroup(t, cgroup))
		addr, closeIt := opener{"tcp4", "127.0.0.1:8080"}.open(t)
		defer closeIt()
		until(t, w, "the name", func(s portwatch.State) bool {
			i := index(s, "tcp", addr)
			return i >= 0 && s.Listeners[i].Process == self()
		})
	})
}

func TestSocketsOlderThanTheEventsAreSeenToGo(t *testing.T) {
	alone(t, func(cgroup string) {
		all := slices.Concat(tcpSockets, udpSockets)
		closers := make([]func() error, len(all))
		addrs := make([]netip.AddrPort, len(all))
		for i, s := range all {
			addrs[i], closers[i] = s.open(t)
		}
		w, _ := follow(t, never, openCgroup(t, cgroup))
		for i, s := range all {
			until(t, w, fmt.Sprintf("%v", s), has(s.proto(), addrs[i]))
		}
		for i, s := range all {
			if err := closers[i](); err != nil {
				t.Fatal(err)
			}
			until(t, w, fmt.Sprintf("%v to go", s), hasNot(s.proto(), addrs[i]))
		}
	})
}

func TestWithoutSockDiagOlderSocketsAreSeenToGoToo(t *testing.T) {
	alone(t, func(cgroup string) {
		_, addr := listen(t, "tcp4", "127.0.0.1:8080")
		older, closeOlder := opener{"tcp4", "127.0.0.1:8081"}.open(t)
		w := portwatch.WatchFrom(&portwatch.Scanner{Proc: "/proc/"}, never, slog.New(slog.DiscardHandler), openCgroup(t, cgroup))
		run(t, w)
		until(t, w, "the sockets", func(s portwatch.State) bool { return has("tcp", addr)(s) && has("tcp", older)(s) })
		if err := closeOlder(); err != nil {
			t.Fatal(err)
		}
		until(t, w, "the older one to go", hasNot("tcp", older))
	})
}

func TestAListenerThatIsShutDownIsGone(t *testing.T) {
	alone(t, func(cgroup string) {
		w, _ := follow(t, never, openCgroup(t, cgroup))
		l, addr := listen(t, "tcp4", "127.0.0.1:8080")
		until(t, w, "the listener", has("tcp", addr))
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var serr error
		if err := raw.Control(func(fd uintptr) { serr = syscall.Shutdown(int(fd), syscall.SHUT_RD) }); err != nil || serr != nil {
			t.Fatal(err, serr)
		}
		until(t, w, "the listener to go", hasNot("tcp", addr))
	})
}

func TestOnlyListenersTellAnything(t *testing.T) {
	alone(t, func(cgroup string) {
		k := openCgroup(t, cgroup)
		defer k.Close()
		l, addr := listen(t, "tcp4", "127.0.0.1:8080")
		if n, err := k.Read(); n != 1 || err != nil {
			t.Fatalf("%d events of a socket that listens, %v", n, err)
		}
		for range 10 {
			c, err := net.Dial("tcp4", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			a, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			a.Close()
			c.Close()
			u, err := net.Dial("udp4", addr.String()) // a client that is given a port
			if err != nil {
				t.Fatal(err)
			}
			u.Close()
		}
		if n, err := k.Read(); n != 0 || err != nil {
			t.Errorf("%d events of clients, %v", n, err)
		}
	})
}

func TestASocketInAnotherNamespaceTellsNothing(t *testing.T) {
	alone(t, func(cgroup string) {
		k := openCgroup(t, cgroup)
		defer k.Close()
		errs := make(chan error)
		go func() { // on a thread that ends with it, since it stays locked
			lockThread()
			errs <- func() error {
				if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
					return err
				}
				if err := loopbackUp(); err != nil {
					return err
				}
				l, err := net.Listen("tcp4", "0.0.0.0:8080")
				if err != nil {
					return err
				}
				defer l.Close()
				u, err := net.ListenPacket("udp4", "0.0.0.0:8080")
				if err != nil {
					return err
				}
				return u.Close()
			}()
		}()
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
		if n, err := k.Read(); n != 0 || err != nil {
			t.Errorf("%d events, %v", n, err)
		}
	})
}

func TestAUDPServerIsKnownByItsBindWhateverThePort(t *testing.T) {
	alone(t, func(cgroup string) {
		w, _ := follow(t, never, openCgroup(t, cgroup))
		for _, row := range []struct {
			addr      string
			ephemeral bool
		}{
			{"127.0.0.1:51820", false}, {"127.0.0.1:60001", false}, {"[::1]:51820", false}, {"127.0.0.1:5353", false},
			{"127.0.0.1:0", true}, {"[::]:0", true},
		} {
			addr, closeIt := opener{"udp", row.addr}.open(t)
			s := until(t, w, row.addr, has("udp", addr))
			if got := s.Listeners[index(s, "udp", addr)].Ephemeral; got != row.ephemeral {
				t.Errorf("%s: ephemeral is %v", row.addr, got)
			}
			if err := closeIt(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestASourceThatDiesIsReplacedAndLoggedOnce(t *testing.T) {
	alone(t, func(cgroup string) {
		k := openCgroup(t, cgroup)
		w, log := follow(t, 100*time.Millisecond, k, openTracepoint(t))
		addr, closeIt := opener{"tcp4", "127.0.0.1:8080"}.open(t)
		until(t, w, "the listener", has("tcp", addr))
		detachAll(t, cgroup)
		for s, _ := w.State(); s.Sources.TCP != "tracepoint"; s, _ = w.State() {
			time.Sleep(time.Millisecond)
			if t.Context().Err() != nil {
				t.Fatal("the source was not replaced")
			}
		}
		until(t, w, "the listener to stay", has("tcp", addr))
		if err := closeIt(); err != nil {
			t.Fatal(err)
		}
		until(t, w, "the listener to go", hasNot("tcp", addr))
		if n := strings.Count(log.String(), "events of sockets have ended"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log)
		}
	})
}

func TestLostEventsLeadToALookAtEverything(t *testing.T) {
	alone(t, func(cgroup string) {
		k, err := portwatch.OpenCgroup(cgroup, 4096)
		if err != nil {
			t.Fatal(err)
		}
		w, _ := follow(t, never, k)
		k.Stop()
		var last netip.AddrPort
		for port := 2000; port < 2400; port++ { // 24 bytes each
			addr, closeIt := opener{"udp4", fmt.Sprintf("127.0.0.1:%d", port)}.open(t)
			defer closeIt()
			last = addr
		}
		k.Go()
		until(t, w, "the last of many sockets", has("udp", last))
	})
}

func TestPortsThatFlapCostLittleAndEndAsTheyAre(t *testing.T) {
	alone(t, func(cgroup string) {
		w, _ := follow(t, never, openCgroup(t, cgroup))
		before, _ := w.State()
		start, spent := time.Now(), processTime(t)
		const ports = 1000
		for i := range ports * 2 {
			l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", 2000+i%ports))
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			if ahead := time.Duration(i)*time.Millisecond - time.Since(start); ahead > 0 {
				time.Sleep(ahead)
			}
		}
		took := time.Since(start)
		spent = processTime(t) - spent
		_, addr := listen(t, "tcp4", "127.0.0.1:8080")
		rested := time.Now()
		s := until(t, w, "the last one and no other", func(s portwatch.State) bool {
			return has("tcp", addr)(s) && len(s.Listeners) == 1
		})
		late := time.Since(rested)
		rate := float64(s.Generation-before.Generation) / took.Seconds()
		t.Logf("%.0f changes a second, %v of CPU in %v with the flapping itself, settled after %v", rate, spent, took, late)
		if rate > 220 { // a name may follow each look
			t.Errorf("%.0f changes a second", rate)
		}
	})
}

func TestAFloodOfEventsIsNotReadOneByOneAndHidesNoPort(t *testing.T) {
	alone(t, func(cgroup string) {
		k := openCgroup(t, cgroup)
		w, _ := follow(t, never, k)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var events, late int64
		var flood sync.WaitGroup
		before, start := k.Waits(), time.Now()
		flood.Go(func() {
			for ctx.Err() == nil { // what is gone before it is looked for
				if c, err := net.ListenPacket("udp4", "127.0.0.1:0"); err == nil {
					c.Close()
					events += 2
				}
			}
		})
		const ports = 5
		for i := range ports {
			addr, closeIt := opener{"tcp4", fmt.Sprintf("127.0.0.1:%d", 8080+i)}.open(t)
			opened := time.Now()
			until(t, w, "a port beside the flood", has("tcp", addr))
			late = max(late, time.Since(opened).Milliseconds())
			time.Sleep(200 * time.Millisecond) // of the flood
			if err := closeIt(); err != nil {
				t.Fatal(err)
			}
			until(t, w, "the port to go", hasNot("tcp", addr))
		}
		waits, took := k.Waits()-before, time.Since(start)
		cancel()
		flood.Wait()
		t.Logf("%d events in %v, waited for %d times, a port at most %d ms late", events, took, waits, late)
		// A burst of 500 is read as it comes, and then 1,000 a second; looks come to that.
		if float64(waits) > 1000+1500*took.Seconds() {
			t.Errorf("waited %d times for %d events in %v", waits, events, took)
		}
		until(t, w, "what is left", func(s portwatch.State) bool { return len(s.Listeners) == 0 })
	})
}

// Each change is listed for its port alone: all of them have to come to what a scan finds.
func TestWhatIsShownAfterManyChangesIsWhatAScanFinds(t *testing.T) {
	alone(t, func(cgroup string) {
		w, _ := follow(t, never, openCgroup(t, cgroup))
		dice := rand.New(rand.NewPCG(1, 2))
		addrs := []string{"127.0.0.1", "0.0.0.0", "127.0.0.2", "[::1]", "[::]"}
		open := make(map[string]io.Closer)
		for range 3000 {
			at := fmt.Sprintf("%s:%d", addrs[dice.IntN(len(addrs))], 2000+dice.IntN(40))
			network := []string{"tcp", "udp"}[dice.IntN(2)]
			if c := open[network+at]; c != nil {
				c.Close()
				delete(open, network+at)
				continue
			}
			var c io.Closer
			var err error
			if network == "tcp" {
				c, err = net.Listen("tcp", at)
			} else {
				c, err = net.ListenPacket("udp", at)
			}
			if err == nil { // or another has the address
				open[network+at] = c
			}
		}
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		want, err := new(portwatch.Scanner).Scan()
		if err != nil {
			t.Fatal(err)
		}
		until(t, w, "what a scan finds", func(s portwatch.State) bool {
			return slices.EqualFunc(s.Listeners, want, func(a, b portlist.Listener) bool {
				a.Process, b.Process = "", ""
				return a == b
			})
		})
	})
}

func TestAChangedNetworkIsSeenAtOnce(t *testing.T) {
	alone(t, func(cgroup string) {
		_, addr := listen(t, "tcp4", "127.0.0.1:8080")
		w, _ := follow(t, never, openCgroup(t, cgroup))
		unusable := func(s portwatch.State) string { return s.Listeners[index(s, "tcp", addr)].Unusable }
		if err := loopback(0); err != nil {
			t.Fatal(err)
		}
		until(t, w, "loopback to be down", func(s portwatch.State) bool { return unusable(s) == portwatch.LoopbackDown })
		if err := loopback(unix.IFF_UP); err != nil {
			t.Fatal(err)
		}
		until(t, w, "loopback to be up", func(s portwatch.State) bool { return unusable(s) == "" })
	})
}

func TestWithoutPrivilegesTheClockTellsWhenToLook(t *testing.T) {
	alone(t, func(string) {
		lockThread()
		// Capabilities are those of a thread; the Watcher runs on this one.
		var none [2]unix.CapUserData
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		w := portwatch.Watch(new(portwatch.Scanner), 10*time.Millisecond, slog.New(slog.DiscardHandler))
		_, addr := listen(t, "tcp4", "127.0.0.1:8080")
		go func() {
			defer cancel()
			until(t, w, "the listener", has("tcp", addr))
		}()
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
		s, _ := w.State()
		if s.Sources != (portwatch.Sources{TCP: "poll", UDP: "poll"}) || !has("tcp", addr)(s) {
			t.Errorf("%+v", s)
		}
	})
}
