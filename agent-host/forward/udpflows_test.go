package forward_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// stuckLink is a link whose streams take nothing.
func stuckLink(t *testing.T) *serve.Link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.8:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &serve.Link{
		Silent: func() bool { return false },
		Open: func(ctx context.Context, target wire.Target, _ []byte) (relay.Conn, string, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", l.Addr().String())
			if err != nil {
				return nil, "", err
			}
			_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
			return relay.TCP(c.(*net.TCPConn)), "vsock", nil
		},
	}
}

func TestAFullQueueDropsAndCounts(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(stuckLink(t))
	port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	vm.Announce(udpListeners(port, guestIP))
	c := dialUDP(t, addr("127.0.0.1", port))
	b := make([]byte, wire.MaxDatagram)
	eventually(t, vm, "drops are counted", func(all []status.Forward) bool {
		for range 20 {
			_, _ = c.Write(b)
		}
		return all[0].Dropped > 100 && strings.Contains(all[0].LastError, "the guest takes datagrams more slowly")
	})
	// A client that sends little still finds room beside one that sends much.
	_, _ = dialUDP(t, addr("::1", port)).Write([]byte("hello"))
	eventually(t, vm, "the other client's five bytes", func(all []status.Forward) bool {
		return all[0].BytesOut%wire.MaxDatagram == 5
	})
}

// TestUDPFlowsAreBounded has more clients at a time than there may be. Those that lose
// are counted, with the limit in the reason.
func TestUDPFlowsAreBounded(t *testing.T) {
	const most, more = 2048, 300
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(stuckLink(t))
	port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	vm.Announce(udpListeners(port, guestIP))
	for i := range most + more {
		_, _ = dialUDP(t, addr("127.0.0.1", port)).Write([]byte("hello"))
		if i%100 == 0 {
			eventually(t, vm, "received", func(all []status.Forward) bool { return all[0].BytesOut > uint64(5*i) })
		}
	}
	eventually(t, vm, "all received", func(all []status.Forward) bool { return all[0].BytesOut == 5*(most+more) })
	f := one(t, vm)
	if f.ConnectionsActive != most || f.ConnectionsTotal != most+more || f.Dropped != more || !strings.Contains(f.LastError, "2048 clients") {
		t.Errorf("%+v", f)
	}
}

// TestClientsThatHaveGoneMakeRoom has many clients that ask once and go, and one on
// another port that stays. It keeps its flow, and nothing counts as lost.
func TestClientsThatHaveGoneMakeRoom(t *testing.T) {
	const most = 2048
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(stuckLink(t))
	port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	busy, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	vm.Announce(append(udpListeners(port, guestIP), udpListeners(busy, guestIP)...))
	of := func(all []status.Forward, port uint16) status.Forward {
		return all[slices.IndexFunc(all, func(f status.Forward) bool { return f.Port == port })]
	}
	stays := dialUDP(t, addr("127.0.0.1", port))
	_, _ = stays.Write([]byte("hello"))
	for i := range 2 * most {
		c, err := net.Dial("udp", addr("127.0.0.1", busy))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("hello"))
		c.Close()
		if i%100 == 0 {
			eventually(t, vm, "received", func(all []status.Forward) bool { return of(all, busy).BytesOut > uint64(5*i) })
		}
	}
	_, _ = stays.Write([]byte("hello"))
	eventually(t, vm, "all received", func(all []status.Forward) bool {
		return of(all, port).BytesOut == 10 && of(all, busy).BytesOut == 5*2*most
	})
	all := vm.Status()
	if f := of(all, port); f.ConnectionsTotal != 1 || f.Dropped != 0 {
		t.Errorf("who stayed: %+v", f)
	}
	if f := of(all, busy); f.Dropped > 0 || f.ConnectionsActive > most {
		t.Errorf("who went: %+v", f)
	}
}

func TestManyUDPServicesRestartedUnderTrafficLeaveNothingBehind(t *testing.T) {
	const services, restarts = 20, 5
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(udpLink(t))
	type service struct {
		port uint16
		stop func()
		c    *net.UDPConn
	}
	all := make([]service, services)
	var announced []portlist.Listener
	for i := range all {
		port, stop := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
		all[i] = service{port, stop, dialUDP(t, addr("127.0.0.1", port))}
		announced = append(announced, udpListeners(port, guestIP)...)
	}
	vm.Announce(announced)
	for _, s := range all {
		askUntil(t, s.c, "first")
	}
	before := descriptors(t)
	for n := range restarts {
		vm.Announce(announced[services/2:])
		for i := range all {
			all[i].stop()
			_, all[i].stop = udpEcho(t, addr(guestIP, all[i].port))
		}
		vm.Announce(announced)
		for _, s := range all {
			askUntil(t, s.c, fmt.Sprint("restart ", n))
		}
	}
	deadline := time.Now().Add(patience)
	for descriptors(t) > before+8 { // pooled connections of the link
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors, %d before", descriptors(t), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAFlowMovesWhenItsAddressRefuses(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(udpLink(t))
	port, stop := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	vm.Announce(udpListeners(port, guestIP))
	c := dialUDP(t, addr("127.0.0.1", port))
	askUntil(t, c, "here")
	const other = "127.0.0.11"
	_, _ = udpEcho(t, addr(other, port))
	vm.Announce(udpListeners(port, other))
	askUntil(t, c, "still here")
	stop()
	askUntil(t, c, "there")
	if f := one(t, vm); f.ConnectionsTotal != 1 {
		t.Errorf("%+v", f)
	}
}

// TestALinkThatHasCarriedDatagramsRestsAgain: a link with a stream beats every second.
func TestALinkThatHasCarriedDatagramsRestsAgain(t *testing.T) {
	link := udpLink(t)
	open := link.Open
	opened := make(chan relay.Conn, 4)
	link.Open = func(ctx context.Context, target wire.Target, early []byte) (relay.Conn, string, error) {
		c, path, err := open(ctx, target, early)
		if err == nil {
			opened <- c
		}
		return c, path, err
	}
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(link)
	port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	vm.Announce(udpListeners(port, guestIP))
	for range 2 {
		client := dialUDP(t, addr("127.0.0.1", port))
		askUntil(t, client, "hello")
		_ = client.Close()
		dead := make(chan struct{})
		(<-opened).(*stream.Stream).WhenDead(func() { close(dead) })
		select {
		case <-dead:
		case <-time.After(patience):
			t.Fatal("the datagram stream outlives its last flow")
		}
	}
}
