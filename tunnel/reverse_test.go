package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// reversed is a listener in the guest, and what the host has heard of it.
type reversed struct {
	*announce.Reverse
	mu    sync.Mutex
	state string
	ended []error
}

func (r *reversed) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

func (r *reversed) ends() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]error(nil), r.ended...)
}

// reverseTo is a listener whose connections go to a service on the host.
func reverseTo(listen, service wire.Target) *reversed {
	r := &reversed{}
	r.Reverse = &announce.Reverse{
		Listen: listen,
		Dial: func(ctx context.Context) (relay.Conn, error) {
			var d net.Dialer
			if service.Network == "unix" {
				c, err := d.DialContext(ctx, "unix", service.Path)
				if err != nil {
					return nil, err
				}
				return relay.Unix(c.(*net.UnixConn)), nil
			}
			c, err := d.DialContext(ctx, "tcp", service.Addrs[0].String())
			if err != nil {
				return nil, err
			}
			return relay.TCP(c.(*net.TCPConn)), nil
		},
		Ended: func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ended = append(r.ended, err)
		},
		State: func(s wire.ReverseState, reason string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.state = fmt.Sprint(s, " ", reason)
		},
		Counters: new(relay.Counters),
	}
	return r
}

// freeAddr is an address that nobody listens at. It is at a loopback address of this process's own: a port of 127.0.0.1
// is now and then taken by another program before it is used here.
func freeAddr(t *testing.T) wire.Target {
	t.Helper()
	pid := os.Getpid()
	own := netip.AddrFrom4([4]byte{127, byte(64 + pid>>16&63), byte(pid >> 8), byte(pid)})
	l, err := net.Listen("tcp", netip.AddrPortFrom(own, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}}
}

// refusingAddr is an address that refuses connections until the test ends: it is bound, so that no program of this
// machine can come to listen there in the meantime, and nobody listens.
func refusingAddr(t *testing.T) wire.Target {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	loopback := netip.MustParseAddr("127.0.0.1")
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback.As4()}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := at.(*unix.SockaddrInet4).Port
	return wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.AddrPortFrom(loopback, uint16(port))}}
}

func setReverse(t *testing.T, l *link, rs ...*reversed) {
	t.Helper()
	set := make([]*announce.Reverse, len(rs))
	for i, r := range rs {
		set[i] = r.Reverse
	}
	if err := l.SetReverse(set); err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		eventually(t, "the state of a listener", func() bool { return r.said() != "" })
	}
}

const listening = "0 "

// inGuest connects to a listener as a program of the guest does.
func inGuest(t *testing.T, to wire.Target) net.Conn {
	t.Helper()
	address := to.Path
	if to.Network == "tcp" {
		address = to.Addrs[0].String()
	}
	c, err := net.DialTimeout(to.Network, address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func TestAGuestReachesTheHostThroughAReverseListener(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		socket := wire.UnixTarget(filepath.Join(t.TempDir(), "reverse.sock"))
		tcpToTCP := reverseTo(freeAddr(t), service(t, func(c *net.TCPConn) {
			defer c.Close()
			all, _ := io.ReadAll(c) // needs the client's EOF
			_, _ = c.Write(all)
		}))
		unixToUnix := reverseTo(socket, socketService(t, func(c *net.UnixConn) {
			defer c.Close()
			all, _ := io.ReadAll(c)
			_, _ = c.Write(all)
		}))
		setReverse(t, l, tcpToTCP, unixToUnix)
		for _, r := range []*reversed{tcpToTCP, unixToUnix} {
			if r.said() != listening {
				t.Fatalf("%v: %s", r.Listen, r.said())
			}
			for _, size := range []int{1, 4 << 20} {
				c := inGuest(t, r.Listen)
				sent := randomBytes(size)
				go func() {
					_, _ = c.Write(sent)
					_ = c.(interface{ CloseWrite() error }).CloseWrite()
				}()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("%d of %d bytes came back: %v", len(got), size, err)
				}
			}
			eventually(t, "both ends", func() bool { return len(r.ends()) == 2 })
			for _, err := range r.ends() {
				if err != nil {
					t.Error(err)
				}
			}
			if in, out := r.Counters.In.Load(), r.Counters.Out.Load(); in != 1+(4<<20) || out != in {
				t.Errorf("%d in, %d out", in, out)
			}
		}
		if info, err := os.Stat(socket.Path); err != nil || info.Mode().Perm() != 0o666 {
			t.Errorf("%v, %v; want what everybody may connect to", info, err)
		}
		setReverse(t, l)
		eventually(t, "the listeners to go", func() bool {
			_, err := os.Lstat(socket.Path)
			c, derr := net.Dial("tcp", tcpToTCP.Listen.Addrs[0].String())
			if derr == nil {
				_ = c.Close()
			}
			return err != nil && derr != nil
		})
	})
}

func TestAServiceOfTheHostThatRefusesOrResetsDoesSoInTheGuest(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		refused := reverseTo(freeAddr(t), refusingAddr(t))
		reset := reverseTo(freeAddr(t), service(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 1))
			_ = c.SetLinger(0)
			_ = c.Close()
		}))
		setReverse(t, l, refused, reset)
		// It may come so soon that it is an error of the connect.
		c, err := net.Dial("tcp", refused.Listen.Addrs[0].String())
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a service that is not there: %v, want a reset", err)
		}
		eventually(t, "the reason", func() bool {
			ends := refused.ends()
			return len(ends) == 1 && errors.Is(ends[0], syscall.ECONNREFUSED)
		})
		client := inGuest(t, reset.Listen).(*net.TCPConn)
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		wantReset(t, client)
	})
}

func TestAReverseListenerWaitsForItsAddress(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		held, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		at := wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort(held.Addr().String())}}
		r, other := reverseTo(at, service(t, echo)), reverseTo(freeAddr(t), service(t, echo))
		foreign := reverseTo(wire.Target{Network: "tcp", Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:80")}}, at)
		setReverse(t, l, r, other, foreign)
		if s := r.said(); !strings.HasPrefix(s, "1 ") || !strings.Contains(s, "in use") {
			t.Errorf("a held address: %s", s)
		}
		if s := foreign.said(); !strings.HasPrefix(s, "3 ") {
			t.Errorf("an address of nobody: %s", s)
		}
		kept := inGuest(t, other.Listen)
		_ = held.Close()
		eventually(t, "the address to be taken", func() bool { return r.said() == listening })
		setReverse(t, l, other, r) // in another order, and one less
		for _, c := range []net.Conn{inGuest(t, r.Listen), kept} {
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestTheEndOfALinkEndsItsReverseListenersAndTheirConnections(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			g := startGuest(t, kind, keyed)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			l, err := tunnel.Dial(ctx, g.endpoint, tunnel.Config{Key: keyed.Key, Log: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			running, stop := context.WithCancel(t.Context())
			defer stop()
			go func() { ended <- l.Run(running, func(announce.Announcement) {}) }()
			r := reverseTo(freeAddr(t), service(t, echo))
			setReverse(t, &link{Link: l}, r)
			c := inGuest(t, r.Listen).(*net.TCPConn)
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			stop()
			if err := soon(t, ended, "the link has ended"); err != nil {
				t.Error(err)
			}
			wantReset(t, c)
			eventually(t, "the listener to go", func() bool {
				c, err := net.Dial("tcp", r.Listen.Addrs[0].String())
				if err == nil {
					_ = c.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			})
		})
	}
}

func TestWhatListensForAHostIsInNoScan(t *testing.T) {
	own := new(portwatch.Own)
	g := startGuest(t, stream.PathMux, keyed)
	g.server.Own = own
	l := startLink(t, g, keyed)
	scan := func(s *portwatch.Scanner, addr netip.AddrPort) bool {
		t.Helper()
		all, err := s.Scan()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			if l.Addr == addr {
				return true
			}
		}
		return false
	}
	filtered := &portwatch.Scanner{Own: own}
	defer filtered.Close()
	for range 20 {
		r := reverseTo(freeAddr(t), service(t, echo))
		stop, done := make(chan struct{}), make(chan struct{})
		go func() { // scans see it come and go
			defer close(done)
			for {
				if scan(filtered, r.Listen.Addrs[0]) {
					t.Error("announced what listens for the host")
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		setReverse(t, l, r)
		if !scan(new(portwatch.Scanner), r.Listen.Addrs[0]) {
			t.Error("not even an ordinary scan sees the listener")
		}
		setReverse(t, l)
		eventually(t, "the listener to go", func() bool { return !scan(new(portwatch.Scanner), r.Listen.Addrs[0]) })
		close(stop)
		<-done
	}
}

func TestASocketOfTheGuestWhoseFileIsRemovedIsMadeAgain(t *testing.T) {
	l := startLink(t, startGuest(t, stream.PathMux, keyed), keyed)
	socket := wire.UnixTarget(filepath.Join(t.TempDir(), "reverse.sock"))
	r := reverseTo(socket, service(t, echo))
	setReverse(t, l, r)
	if err := os.Remove(socket.Path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the socket to be there again", func() bool {
		c, err := net.Dial("unix", socket.Path)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
}

func TestAResetOfTheGuestsClientIsNoErrorOfTheService(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		r := reverseTo(freeAddr(t), service(t, echo))
		setReverse(t, l, r)
		c := inGuest(t, r.Listen).(*net.TCPConn)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetLinger(0)
		_ = c.Close()
		eventually(t, "the end", func() bool { return len(r.ends()) == 1 })
		if err := r.ends()[0]; !errors.Is(err, relay.ErrClient) {
			t.Error(err)
		}
	})
}
