package portwatch_test

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch"
)

// connect connects a bound socket, as a server does that serves one client.
func connect(t *testing.T, c *net.UDPConn, to netip.AddrPort) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cerr = syscall.Connect(int(fd), &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	})
	if err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
}

func TestAUDPServerThatConnectsToItsClientStaysAListener(t *testing.T) {
	eachSource(t, func(t *testing.T, s *portwatch.Scanner) {
		c, err := net.ListenUDP("udp4", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		addr := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(c.LocalAddr().(*net.UDPAddr).Port))
		if _, ok := find(t, s, "udp", addr); !ok {
			t.Fatalf("%s is not in the scan", addr)
		}
		connect(t, c, netip.MustParseAddrPort("127.0.0.1:9"))
		for range 3 {
			if got, ok := find(t, s, "udp", addr); !ok || got.Process != self() {
				t.Fatalf("connected: got %v, %v; want it at %s", got, ok, addr)
			}
		}
		// A wildcard is what it was bound to; 127.0.0.1 is what it has now.
		if _, ok := find(t, s, "udp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port())); ok {
			t.Error("connected: also announced at the address of its connection")
		}
		c.Close()
		if _, ok := find(t, s, "udp", addr); ok {
			t.Errorf("%s is still in the scan after close", addr)
		}
	})
}

func TestAUDPServerIsRememberedAcrossASkippedRowAndNotLonger(t *testing.T) {
	row := func(remote, state string) string {
		return udp4 + fmt.Sprintf("  312: 00000000:1F90 %s %s 00000000:00000000 00:00000000 00000000  1000        0 31000 2 ffff888101240480 0\n", remote, state)
	}
	bound, connected := row("00000000:0000", "07"), row("0100007F:0035", "01")
	root := fakeProc(t)
	s := &portwatch.Scanner{Proc: root}
	for i, step := range []struct {
		table string
		want  bool
	}{
		{connected, false}, {bound, true}, {udp4, false}, {connected, true}, {connected, true},
		{udp4, false}, {udp4, false}, {connected, false},
	} {
		write(t, root, "net/udp", step.table)
		if _, ok := find(t, s, "udp", netip.MustParseAddrPort("0.0.0.0:8080")); ok != step.want {
			t.Errorf("scan %d: found %v, want %v", i, ok, step.want)
		}
	}
}
