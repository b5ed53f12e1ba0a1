package forward_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	eacces        = unix.EACCES
	eaddrnotavail = unix.EADDRNOTAVAIL
)

func unixErr(call string, err error) error { return os.NewSyscallError(call, err) }

func TestTargetsBeginWithTheClientsFamily(t *testing.T) {
	targets := make(chan []netip.AddrPort, 1)
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(&serve.Link{
		Silent: func() bool { return false },
		Open: func(_ context.Context, target wire.Target, _ []byte) (relay.Conn, string, error) {
			targets <- target.Addrs
			return nil, "", errors.New("seen enough")
		},
	})
	port := ownnet.FreePort(t)
	v6only := listeners(port, "::")
	v6only[0].V6Only = true
	for _, row := range []struct {
		guest []portlist.Listener
		from4 []string
		from6 []string
	}{
		{listeners(port, "0.0.0.0", "::1"), []string{"0.0.0.0", "::1"}, []string{"::1", "0.0.0.0"}},
		{listeners(port, "::"), []string{"127.0.0.1", "::"}, []string{"::", "127.0.0.1"}},
		{listeners(port, "127.0.0.1", "::"), []string{"127.0.0.1", "::"}, []string{"::", "127.0.0.1"}},
		{v6only, []string{"::"}, []string{"::"}},
		{listeners(port, "127.0.0.1"), []string{"127.0.0.1"}, []string{"127.0.0.1"}},
	} {
		vm.Announce(row.guest)
		for client, want := range map[string][]string{"127.0.0.1": row.from4, "::1": row.from6} {
			dialForReset(t, addr(client, port))
			var got []string
			for _, a := range <-targets {
				got = append(got, a.Addr().String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%v for a client from %s: dials %v, want %v", row.guest, client, got, want)
			}
		}
	}
}

func TestSlowOpenHoldsNobodyUp(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	good := linkTo(echo(t, "127.0.0.2:0"))
	stuck := make(chan struct{}, 1)
	stuck <- struct{}{}
	vm.SetLink(&serve.Link{Silent: good.Silent, Open: func(ctx context.Context, target wire.Target, early []byte) (relay.Conn, string, error) {
		select {
		case <-stuck:
			<-ctx.Done()
			return nil, "", ctx.Err()
		default:
			return good.Open(ctx, target, early)
		}
	}})
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	dial(t, addr("127.0.0.1", port))
	eventually(t, vm, "one connection is stuck", func(all []status.Forward) bool { return all[0].ConnectionsActive == 1 && len(stuck) == 0 })
	began := time.Now()
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestBytesAndConnectionsAreCounted(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	for range 3 {
		c := dial(t, addr("127.0.0.1", port))
		roundTrip(t, c)
		c.CloseWrite()
	}
	eventually(t, vm, "all counted", func(all []status.Forward) bool {
		f := all[0]
		return f.ConnectionsActive == 0 && f.ConnectionsTotal == 3 && f.BytesIn == 15 && f.BytesOut == 15
	})
}

// The process really has no descriptor left.
func TestLackOfDescriptorsIsShownAndSurvived(t *testing.T) {
	table := newTable(t, forward.Config{})
	vm := table.Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	warm := dial(t, addr("127.0.0.1", port)) // so that everything runs that will
	roundTrip(t, warm)

	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var fill []int
	release := func() {
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		for _, fd := range fill {
			unix.Close(fd)
		}
		fill = nil
	}
	defer release()
	for {
		fd, err := unix.FcntlInt(uintptr(client), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			break
		}
		fill = append(fill, fd)
	}
	if err := unix.Connect(client, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(client, make([]byte, 1)); err != unix.ECONNRESET {
		t.Errorf("read %d, %v; want a reset", n, err)
	}
	if text := table.Shortage(); !strings.Contains(text, "(ulimit -n 256): 1 new connections were reset") {
		t.Errorf("status says %q", text)
	}
	release()
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
}

func TestManyConnectionsLeaveNothingBehind(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	var before int
	for round := range 2 { // what is opened once, at some time, is there after the first
		for range 150 {
			c, err := net.Dial("tcp", addr("127.0.0.1", port))
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, c)
			c.Close()
		}
		eventually(t, vm, "all ended", func(all []status.Forward) bool { return all[0].ConnectionsActive == 0 })
		if round == 0 {
			before = descriptors(t)
		}
	}
	deadline := time.Now().Add(patience)
	for descriptors(t) > before {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors, %d before", descriptors(t), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	// The pipes that a relay splices through stay for the next one, and a loop has a second
	// epoll descriptor at times.
	return len(slices.DeleteFunc(all, func(e os.DirEntry) bool {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		return strings.HasPrefix(to, "pipe:") || to == "anon_inode:[eventpoll]"
	}))
}

// Browsers and gRPC clients close with answers unread, which makes the kernel send a
// reset.
func TestAResetOfTheClientIsNoError(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.3:0")))
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	for i, end := range []func(c *net.TCPConn){
		func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() },
		func(c *net.TCPConn) {
			_, _ = c.Write([]byte("ping"))
			eventually(t, vm, "an answer", func(all []status.Forward) bool { return all[0].BytesIn%5 == 4 })
			c.Close()
		},
	} {
		c := dial(t, addr("127.0.0.1", port))
		roundTrip(t, c)
		end(c)
		eventually(t, vm, "the end", func(all []status.Forward) bool { return all[0].ConnectionsActive == 0 })
		if f := one(t, vm); f.LastError != "" || f.LastErrorAt != nil {
			t.Errorf("end %d: %q at %v", i, f.LastError, f.LastErrorAt)
		}
	}

	vm.SetLink(brokenLink())
	before := time.Now()
	dialForReset(t, addr("127.0.0.1", port))
	eventually(t, vm, "an error", func(all []status.Forward) bool { return all[0].LastError != "" })
	if at := one(t, vm).LastErrorAt; at == nil || at.Before(before) || at.After(time.Now()) {
		t.Errorf("an error at %v", at)
	}
}

// What a listener of the host is shut down by is no matter: a debugger can, or the
// kernel where its network namespace goes.
func TestAForwardThatAcceptsNoMoreIsNotActive(t *testing.T) {
	sockets := make(chan int, 2)
	var denied atomic.Bool
	listen := func(a netip.AddrPort) (*net.TCPListener, error) {
		if denied.Load() {
			return nil, unixErr("bind", eacces)
		}
		l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(a))
		if err != nil {
			return nil, err
		}
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := unix.Dup(int(f.Fd()))
		sockets <- fd
		return l, err
	}
	port := ownnet.FreePort(t)
	rules := func(string, portlist.Listener) policy.Decision {
		return policy.Decision{Rule: "test", Host: []netip.AddrPort{netip.MustParseAddrPort(addr("127.0.0.1", port))}}
	}
	table := newTable(t, forward.Config{Listen: listen, Rules: rules})
	vm := table.Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.3:0")))
	vm.Announce(listeners(port, "0.0.0.0"))
	roundTrip(t, dial(t, addr("127.0.0.1", port)))

	denied.Store(true)
	socket := <-sockets
	if err := unix.Shutdown(socket, unix.SHUT_RD); err != nil {
		t.Fatal(err)
	}
	unix.Close(socket)
	eventually(t, vm, "not active", inState(status.Denied))
	denied.Store(false)
	eventually(t, vm, "active again", inState(status.Active))
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
	unix.Close(<-sockets)
}

// The timer of a connection is in /proc/net/tcp: 2 is for keep-alives.
func TestAClientWhoseNetworkWentIsNoticed(t *testing.T) {
	for host, want := range map[string]string{"0.0.0.0": "02", "127.0.0.1": "00"} {
		port := ownnet.FreePort(t)
		rules := func(string, portlist.Listener) policy.Decision {
			return policy.Decision{Rule: "test", Host: []netip.AddrPort{netip.MustParseAddrPort(addr(host, port))}}
		}
		vm := newTable(t, forward.Config{Rules: rules}).Add("dev")
		vm.SetLink(linkTo(echo(t, "127.0.0.3:0")))
		vm.Announce(listeners(port, "0.0.0.0"))
		roundTrip(t, dial(t, addr("127.0.0.1", port)))
		eventually(t, vm, "a timer of kind "+want+" on "+host, func([]status.Forward) bool {
			table, err := os.ReadFile("/proc/net/tcp")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(table)) {
				f := strings.Fields(line)
				if f[1] != fmt.Sprintf("0100007F:%04X", port) || f[3] != "01" {
					continue
				}
				kind, left, _ := strings.Cut(f[5], ":")
				hundredths, err := strconv.ParseUint(left, 16, 64)
				return err == nil && kind == want && hundredths <= 6000
			}
			return false
		})
	}
}
