package forward_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

var quiet = slog.New(slog.DiscardHandler)

// guestIP is where the guest of these tests has its sockets, so that the host
// has the same ports free.
const guestIP = "127.0.0.7"

// udpLink is a link to a guest agent in this process.
func udpLink(t *testing.T) *serve.Link {
	t.Helper()
	e := endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: filepath.Join(t.TempDir(), "s")}
	l, err := endpoint.Listen(e, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	server := &tunnel.Server{Config: tunnel.Config{Log: quiet}, Source: func() (announce.Announcement, <-chan struct{}) {
		return announce.Announcement{Generation: 1}, nil
	}}
	running.Go(func() {
		if err := server.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	link, err := tunnel.Dial(t.Context(), e, tunnel.Config{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { _ = link.Run(ctx, func(announce.Announcement) {}) })
	return &serve.Link{
		Path:   stream.PathRaw,
		Silent: func() bool { return false },
		Open: func(ctx context.Context, target wire.Target, early []byte) (relay.Conn, string, error) {
			s, err := link.Open(ctx, target, early)
			if err != nil {
				return nil, "", err
			}
			return s, s.Path(), nil
		},
	}
}

// udpEcho answers datagrams on an address of the guest with what they say and
// where they came from, until stop is called.
func udpEcho(t *testing.T, address string) (port uint16, stop func()) {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.UDPConn).SetReadBuffer(8 << 20)
	var done sync.WaitGroup
	done.Go(func() {
		for buf := make([]byte, 1<<16); ; {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteTo(buf[:n], from)
			}
		}
	})
	stop = sync.OnceFunc(func() { c.Close(); done.Wait() })
	t.Cleanup(stop)
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), stop
}

func udpListeners(port uint16, hosts ...string) []portlist.Listener {
	out := listeners(port, hosts...)
	for i := range out {
		out[i].Proto = "udp"
	}
	return out
}

func dialUDP(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	return c.(*net.UDPConn)
}

// ask sends a datagram and returns whether the same came back in time.
func ask(c net.Conn, b []byte, limit time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := c.Write(b); err != nil {
		return err
	}
	got := make([]byte, 1<<16)
	n, err := c.Read(got)
	if err != nil {
		return err
	}
	if !bytes.Equal(got[:n], b) {
		return fmt.Errorf("%d bytes came back for %d, or changed", n, len(b))
	}
	return nil
}

// askUntil asks again and again, as a client of UDP does.
func askUntil(t *testing.T, c net.Conn, text string) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		err := ask(c, []byte(text), 200*time.Millisecond)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q was never answered: %v", text, err)
		}
	}
}

func TestUDPIsOnBothLoopbackAddresses(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(udpLink(t))
	port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	vm.Announce(udpListeners(port, guestIP))
	for _, host := range []string{"127.0.0.1", "::1"} {
		c := dialUDP(t, addr(host, port)) // connected: takes answers from there alone
		for _, size := range []int{0, 1, 1472, 9000, wire.MaxDatagram} {
			if err := ask(c, make([]byte, size), patience); err != nil {
				t.Fatalf("%d bytes to %s: %v", size, host, err)
			}
		}
	}
	const bytes = 2 * (1 + 1472 + 9000 + wire.MaxDatagram)
	// A datagram is counted after it was sent, which may be after its answer came.
	eventually(t, vm, "all counted", func(all []status.Forward) bool { return all[0].BytesIn >= bytes && all[0].BytesOut >= bytes })
	f := one(t, vm)
	if f.State != status.Active || f.Path != "vsock" || f.ConnectionsTotal != 2 || f.ConnectionsActive != 2 ||
		f.BytesIn != bytes || f.BytesOut != bytes || f.Dropped != 0 || f.LastError != "" ||
		!slices.Equal(f.Host, []string{addr("127.0.0.1", port), addr("::1", port)}) {
		t.Errorf("%+v", f)
	}
}

func TestUDPAndTCPOnOnePortAreTwoForwards(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(udpLink(t))
	port := ownnet.FreePort(t)
	udpEcho(t, addr(guestIP, port))
	echo(t, addr(guestIP, port))
	vm.Announce(append(listeners(port, guestIP), udpListeners(port, guestIP)...))
	if err := ask(dialUDP(t, addr("127.0.0.1", port)), []byte("udp"), patience); err != nil {
		t.Error(err)
	}
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
	vm.Announce(listeners(port, guestIP))
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
	if f := one(t, vm); f.Proto != "tcp" || f.State != status.Active {
		t.Errorf("%+v", f)
	}
}

func TestFiftyUDPClientsGetTheirOwnAnswers(t *testing.T) {
	ways := map[string]func(*forward.VM){
		"link":   func(vm *forward.VM) { vm.SetLink(udpLink(t)) },
		"bridge": func(vm *forward.VM) { vm.SetBridge(netip.MustParseAddr(guestIP), nil) },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			const clients, rounds = 50, 40
			vm := newTable(t, forward.Config{}).Add("dev")
			way(vm)
			port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
			vm.Announce(udpListeners(port, guestIP))
			var running sync.WaitGroup
			var mu sync.Mutex
			lost := 0
			for i := range clients {
				c := dialUDP(t, addr("127.0.0.1", port))
				running.Go(func() {
					dice := rand.New(rand.NewPCG(uint64(i), 1))
					for range rounds {
						size := dice.IntN(1400)
						if dice.IntN(4) == 0 {
							size = dice.IntN(wire.MaxDatagram + 1)
						}
						b := make([]byte, size)
						for j := range b {
							b[j] = byte(i)
						}
						err := ask(c, b, 2*time.Second)
						if errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "timeout") {
							mu.Lock()
							lost++
							mu.Unlock()
							// A late answer must not be taken for the next one's.
							c = dialUDP(t, addr("127.0.0.1", port))
						} else if err != nil {
							t.Error(err)
						}
					}
				})
			}
			running.Wait()
			f := one(t, vm)
			t.Logf("%d of %d lost, %d of them seen", lost, clients*rounds, f.Dropped)
			// 0.1 %, which the smallest receive buffers of Debian do not
			// promise for bursts of this size.
			if lost > 2 {
				t.Errorf("%d of %d datagrams were lost: %+v", lost, clients*rounds, f)
			}
		})
	}
}

func TestARestartedUDPServiceKeepsItsClient(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(udpLink(t))
	port, stop := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	vm.Announce(udpListeners(port, guestIP))
	c := dialUDP(t, addr("127.0.0.1", port))
	for range 5 {
		askUntil(t, c, "up")
		stop()
		for range 10 {
			_, _ = c.Write([]byte("down"))
		}
		eventually(t, vm, "the reason is shown", func(all []status.Forward) bool {
			return strings.Contains(all[0].LastError, "nothing receives at udp")
		})
		_, stop = udpEcho(t, addr(guestIP, port))
	}
	askUntil(t, c, "up")
	if f := one(t, vm); f.ConnectionsTotal != 1 {
		t.Errorf("the client's flow was replaced: %+v", f)
	}
	// The agent sees the socket go and come back.
	for range 20 {
		stop()
		vm.Announce(nil)
		_, stop = udpEcho(t, addr(guestIP, port))
		vm.Announce(udpListeners(port, guestIP))
		askUntil(t, c, "again")
	}
}

func TestUDPGoesOverTheBridgeWithoutALink(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(brokenLink())
	vm.SetBridge(netip.MustParseAddr(guestIP), nil)
	port, stop := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	vm.Announce(udpListeners(port, guestIP))
	c := dialUDP(t, addr("127.0.0.1", port))
	askUntil(t, c, "a link without streams")
	vm.SetLink(nil)
	askUntil(t, c, "no link")
	if f := one(t, vm); f.Path != "bridge" {
		t.Errorf("%+v", f)
	}
	stop()
	_, _ = c.Write([]byte("nobody is there"))
	_, _ = udpEcho(t, addr(guestIP, port))
	askUntil(t, c, "back")

	vm.SetLink(udpLink(t))
	askUntil(t, c, "a link")
	if f := one(t, vm); f.Path != "vsock" || f.ConnectionsTotal != 1 {
		t.Errorf("%+v", f)
	}
	vm.SetBridge(netip.Addr{}, nil)
	vm.SetLink(nil)
	_, _ = c.Write([]byte("no way"))
	eventually(t, vm, "the drop is shown", func(all []status.Forward) bool {
		return strings.Contains(all[0].LastError, "no link to the guest agent") && all[0].Dropped >= 1
	})
}

func TestUDPComesBackFromTheAddressItWasSentTo(t *testing.T) {
	for wildcard, hosts := range map[string][]string{"0.0.0.0": {"127.0.0.1", "127.0.0.99"}, "::": {"::1"}} {
		free, err := net.ListenPacket("udp", addr(wildcard, 0))
		if err != nil {
			t.Fatal(err)
		}
		host := free.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		free.Close()
		port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
		at := netip.AddrPortFrom(netip.MustParseAddr(wildcard), host)
		vm := newTable(t, forward.Config{Rules: func(string, portlist.Listener) policy.Decision {
			return policy.Decision{Host: []netip.AddrPort{at}}
		}}).Add("dev")
		vm.SetLink(udpLink(t))
		vm.Announce(udpListeners(port, guestIP))
		if f := one(t, vm); f.State != status.Active {
			t.Fatalf("%+v", f)
		}
		for _, ip := range hosts {
			if err := ask(dialUDP(t, addr(ip, host)), []byte(ip), patience); err != nil {
				t.Errorf("%s: %v", ip, err)
			}
		}
	}
}

func TestATakenUDPPortIsAClaim(t *testing.T) {
	table := newTable(t, forward.Config{})
	vm, second := table.Add("dev"), table.Add("two")
	vm.SetLink(udpLink(t))
	port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	taken, err := net.ListenPacket("udp", addr("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	vm.Announce(udpListeners(port, guestIP))
	if f := one(t, vm); f.State != status.Claim {
		t.Errorf("%+v", f)
	}
	eventually(t, vm, "the holder is named", func(all []status.Forward) bool {
		return strings.Contains(all[0].Reason, addr("127.0.0.1", port)+" is held by forward.test[")
	})
	taken.Close()
	eventually(t, vm, "taken over", inState(status.Active))
	second.Announce(udpListeners(port, guestIP))
	if f := one(t, second); f.State != status.Claim || !strings.Contains(f.Reason, "held by VM dev") {
		t.Errorf("%+v", f)
	}
	if err := ask(dialUDP(t, addr("::1", port)), []byte("hello"), patience); err != nil {
		t.Error(err)
	}
}
