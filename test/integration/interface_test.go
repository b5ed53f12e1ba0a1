package integration

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"golang.org/x/sys/unix"
)

// bound is a TCP server and a UDP one on all addresses that take what comes by
// one interface only.
func (ns *namespace) bound(t *testing.T, device string, port uint16) {
	t.Helper()
	addr := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	l, err := net.FileListener(os.NewFile(uintptr(dup(t, ns.bind(t, unix.SOCK_STREAM, addr, device))), "tcp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	greet(l, "bound")
	u, err := net.FilePacketConn(os.NewFile(uintptr(dup(t, ns.bind(t, unix.SOCK_DGRAM, addr, device))), "udp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	echoUDP(u.(*net.UDPConn))
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	fd, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// The guest's agent dials from within: what it sends comes by lo.
func TestAServerBoundToAnInterfaceIsReachedOverTheBridge(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, ",bridge="+g.joined(t), g)
	g.bound(t, "rum1", 7600)
	greet(g.listen(t, "0.0.0.0:7601"), "ordinary")
	bridge := func(f status.Forward) bool { return active(f) && f.Path == "bridge" }
	h.awaitForward(t, "dev", 7600, "carried over the bridge", bridge)
	h.udpForward(t, "dev", 7600, bridge)
	if !answers("127.0.0.1:7600", "bound") || !answers("[::1]:7600", "bound") {
		t.Error("the server does not answer")
	}
	if err := asks(dialUDP(t, "127.0.0.1:7600"), []byte("hello"), 5*time.Second); err != nil {
		t.Error(err)
	}
	if f := h.awaitForward(t, "dev", 7601, "active", active); f.Path != "unix" || !answers("127.0.0.1:7601", "ordinary") {
		t.Errorf("the others go by the link: %+v", f)
	}
}

func TestAServerBoundToAnInterfaceIsActiveOnlyWhereABridgeIsKnown(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	bridge := g.joined(t)
	g.bound(t, "rum1", 7610)
	why := func(f status.Forward) bool {
		return f.State == status.Ignored && len(f.Host) == 0 && f.Reason ==
			"bound to rum1 in the guest, and no bridge address is known: give one with bridge=IP, or bind it to no interface"
	}
	h.awaitForward(t, "dev", 7610, "kept in", why)
	h.udpForward(t, "dev", 7610, why)
	// What takes loopback's connections on the same port is another matter.
	greet(g.listen(t, "[::1]:7610"), "within")
	h.awaitForward(t, "dev", 7610, "active", active)
	if !answers("127.0.0.1:7610", "within") {
		t.Error("the server on loopback does not answer")
	}
	h.stop(t)
	h = startHost(t, ",bridge="+bridge, g)
	h.udpForward(t, "dev", 7610, active)
	if err := asks(dialUDP(t, "127.0.0.1:7610"), []byte("hello"), 5*time.Second); err != nil {
		t.Error(err)
	}
}

// As cloud agents give a machine a range of addresses.
func TestAServerOnAnAddressThatIsOnlyRoutedHereIsReached(t *testing.T) {
	g := newGuest(t, "dev")
	h := startHost(t, "", g)
	g.do(t, func() error { return command("ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo") })
	g.do(t, func() error { return command("ip", "-6", "route", "add", "local", "2001:db8:7::/64", "dev", "lo") })
	// Linux lets a socket be bound to such an IPv6 address only if asked to.
	g.do(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0) })
	for addr, port := range map[string]int{"198.51.100.7:7700": 7700, "[2001:db8:7::7]:7701": 7701} {
		var l net.Listener
		g.do(t, func() (err error) { l, err = net.Listen("tcp", addr); return err })
		defer l.Close()
		greet(l, "routed")
		h.awaitForward(t, "dev", port, "active", active)
		if at := "127.0.0.1" + addr[len(addr)-5:]; !answers(at, "routed") {
			f, _ := h.forward(t, "dev", port)
			t.Errorf("%s is not reached: %+v", addr, f)
		}
	}
}
