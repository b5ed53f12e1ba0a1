package forward_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// bridge is an address that plays the VM's on the host-only network.
var bridge = netip.MustParseAddr("127.0.0.2")

func brokenLink() *serve.Link {
	return &serve.Link{
		Path:   "vsock",
		Silent: func() bool { return false },
		Open: func(context.Context, wire.Target, []byte) (relay.Conn, string, error) {
			return nil, "", errors.New("no stream to be had")
		},
	}
}

func TestBridgeCarriesWhatTheLinkCannot(t *testing.T) {
	silent := &serve.Link{
		Silent: func() bool { return true },
		Open: func(context.Context, wire.Target, []byte) (relay.Conn, string, error) {
			t.Error("a silent link was asked for a stream")
			return nil, "", errors.New("silent")
		},
	}
	for name, link := range map[string]*serve.Link{"no link": nil, "link without streams": brokenLink(), "silent link": silent} {
		t.Run(name, func(t *testing.T) {
			vm := newTable(t, forward.Config{}).Add("dev")
			vm.SetLink(link)
			vm.SetBridge(bridge, nil)
			port := ownnet.FreePort(t)
			echo(t, addr("127.0.0.2", port))
			vm.Announce(listeners(port, "0.0.0.0"))
			roundTrip(t, dial(t, addr("127.0.0.1", port)))
			f := one(t, vm)
			if f.LastError != "" || f.ConnectionsTotal != 1 {
				t.Errorf("%+v", f)
			}
			if link == nil && f.Path != "bridge" {
				t.Errorf("path %q", f.Path)
			}

			vm.SetLink(linkTo(echo(t, "127.0.0.3:0")))
			if f := one(t, vm); f.Path != "vsock" {
				t.Errorf("the link is back, path is %q", f.Path)
			}
		})
	}
}

// With TCP_DEFER_ACCEPT the kernel hands a connection over only when it has data,
// so the client's first bytes are always there before the guest is reached.
func TestFirstBytesArriveOnceWhicheverWayIsTaken(t *testing.T) {
	listen := func(a netip.AddrPort) (*net.TCPListener, error) {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			cerr := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 5)
			})
			return errors.Join(cerr, err)
		}}
		l, err := lc.Listen(t.Context(), "tcp", a.String())
		if err != nil {
			return nil, err
		}
		return l.(*net.TCPListener), nil
	}
	for name, link := range map[string]*serve.Link{"link": linkTo(echo(t, "127.0.0.3:0")), "bridge after the link": brokenLink()} {
		t.Run(name, func(t *testing.T) {
			vm := newTable(t, forward.Config{Listen: listen}).Add("dev")
			vm.SetLink(link)
			vm.SetBridge(bridge, nil)
			port := ownnet.FreePort(t)
			echo(t, addr("127.0.0.2", port))
			vm.Announce(listeners(port, "0.0.0.0"))
			c := dial(t, addr("127.0.0.1", port))
			roundTrip(t, c)
			roundTrip(t, c)
			c.CloseWrite()
			eventually(t, vm, "all counted", func(all []status.Forward) bool {
				f := all[0]
				return f.ConnectionsActive == 0 && f.BytesIn == 10 && f.BytesOut == 10
			})
		})
	}
}

func TestLoopbackOnlyPortIsResetOnTheBridge(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetBridge(bridge, nil)
	port := ownnet.FreePort(t)
	echo(t, addr("127.0.0.2", port)) // not to be reached, whatever it is
	vm.Announce(listeners(port, "127.0.0.1", "::1"))
	if f := one(t, vm); f.Path != "" {
		t.Errorf("path %q", f.Path)
	}
	dialForReset(t, addr("::1", port))
	eventually(t, vm, "the reason is shown", func(all []status.Forward) bool {
		return strings.Contains(all[0].LastError, "listens only on [127.0.0.1:")
	})
}

func TestNoWayIsAPromptReset(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	began := time.Now()
	dialForReset(t, addr("127.0.0.1", port))
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
	eventually(t, vm, "the reason is shown", func(all []status.Forward) bool {
		return strings.Contains(all[0].LastError, "no link to the guest agent")
	})
}

func TestBridgeThatIsTheHostItselfDoesNotLoop(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetBridge(netip.MustParseAddr("127.0.0.1"), nil)
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	dialForReset(t, addr("127.0.0.1", port))
	eventually(t, vm, "counted once, with the reason", func(all []status.Forward) bool {
		return strings.Contains(all[0].LastError, "host's own") && all[0].ConnectionsTotal == 1
	})
}

func TestAFullBacklogIsWaitedForOverTheBridge(t *testing.T) {
	t.Parallel()
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetBridge(bridge, nil)
	port := ownnet.FreePort(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: bridge.As4()}), unix.Listen(fd, 0))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial(t, addr("127.0.0.2", port)) // all there is room for
	vm.Announce(listeners(port, "0.0.0.0"))

	gone := dial(t, addr("127.0.0.1", port))
	eventually(t, vm, "a client waits", func(all []status.Forward) bool { return all[0].ConnectionsActive == 1 })
	_ = gone.SetLinger(0)
	gone.Close()
	eventually(t, vm, "nobody waits for it any more", func(all []status.Forward) bool { return all[0].ConnectionsActive == 0 })
	if f := one(t, vm); f.LastError != "" {
		t.Errorf("what the client did is an error: %s", f.LastError)
	}

	c := dial(t, addr("127.0.0.1", port))
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	timer := time.AfterFunc(3500*time.Millisecond, func() {
		for range 2 {
			if c, err := l.Accept(); err == nil {
				_, _ = c.Write([]byte("hello"))
				defer c.Close()
			}
		}
	})
	defer timer.Stop()
	got := make([]byte, 5)
	if _, err := c.Read(got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}
