package portwatch_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/portwatch"
)

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

func TestWithoutSockDiagEventsTellOfWhatComesAndGoes(t *testing.T) {
	alone(t, func(cgroup string) {
		w := portwatch.WatchFrom(&portwatch.Scanner{Proc: "/proc/"}, never, slog.New(slog.DiscardHandler), openCgroup(t, cgroup))
		w.LookRarely()
		run(t, w)
		until(t, w, "the first look", func(s portwatch.State) bool { return s.Generation > 0 })
		for _, s := range slices.Concat(tcpSockets, udpSockets) {
			addr, closeIt := s.open(t)
			until(t, w, fmt.Sprintf("%v to come", s), has(s.proto(), addr))
			if err := closeIt(); err != nil {
				t.Fatal(err)
			}
			until(t, w, fmt.Sprintf("%v to go", s), hasNot(s.proto(), addr))
		}
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

// Which ports the kernel gives to clients is read after a port was shown, not before.
func TestAChangedRangeOfEphemeralPortsIsSeenWithTheNextPort(t *testing.T) {
	alone(t, func(cgroup string) {
		setRange := func(ports string) {
			if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(ports), 0); err != nil {
				t.Fatal(err)
			}
		}
		setRange("40000 40999")
		w, _ := follow(t, never, openCgroup(t, cgroup))
		first, closeFirst := opener{"tcp4", "127.0.0.1:40001"}.open(t)
		defer closeFirst()
		until(t, w, "a port of the range", func(s portwatch.State) bool {
			i := index(s, "tcp", first)
			return i >= 0 && s.Listeners[i].Ephemeral
		})
		setRange("50000 50999")
		second, closeSecond := opener{"tcp4", "127.0.0.1:50001"}.open(t)
		defer closeSecond()
		until(t, w, "the range that is now", func(s portwatch.State) bool {
			i, j := index(s, "tcp", first), index(s, "tcp", second)
			return i >= 0 && j >= 0 && !s.Listeners[i].Ephemeral && s.Listeners[j].Ephemeral
		})
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
