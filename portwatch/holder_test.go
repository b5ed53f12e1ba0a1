package portwatch_test

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch"
)

func TestHolderNamesTheProcessOfTheAddress(t *testing.T) {
	for _, tc := range []struct{ network, bound, wanted string }{
		{"tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"tcp4", "0.0.0.0:0", "127.0.0.1"},
		{"tcp", ":0", "127.0.0.1"},
		{"tcp", ":0", "::1"},
		{"tcp6", "[::1]:0", "::1"},
		{"tcp4", "127.0.0.1:0", "0.0.0.0"},
		{"tcp4", "127.0.0.1:0", "::"},
		{"tcp4", "127.0.0.1:0", "::ffff:127.0.0.1"},
	} {
		_, addr := listen(t, tc.network, tc.bound)
		wanted := netip.AddrPortFrom(netip.MustParseAddr(tc.wanted), addr.Port())
		if got := portwatch.Holder("tcp", wanted); got != self() {
			t.Errorf("%s with %s bound: got %q, want %q", wanted, addr, got, self())
		}
		if got := portwatch.Holder("udp", wanted); got != "" {
			t.Errorf("udp %s with tcp %s bound: got %q, want nobody", wanted, addr, got)
		}
	}
}

func TestHolderFindsUDPSocketsAndConnections(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if got := portwatch.Holder("udp", unmapped(pc.LocalAddr().String())); got != self() {
		t.Errorf("udp: got %q, want %q", got, self())
	}
	_, addr := listen(t, "tcp4", "127.0.0.1:0")
	conn, err := net.Dial("tcp4", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := portwatch.Holder("tcp", unmapped(conn.LocalAddr().String())); got != self() {
		t.Errorf("connection: got %q, want %q", got, self())
	}
}

func TestHolderOfAFreeAddressIsNobody(t *testing.T) {
	ln, addr := listen(t, "tcp4", "127.0.0.1:0")
	if got := portwatch.Holder("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), addr.Port())); got != "" {
		t.Errorf("another address: got %q", got)
	}
	if got := portwatch.Holder("tcp", netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port())); got != "" {
		t.Errorf("another family: got %q", got)
	}
	_, any4 := listen(t, "tcp4", "0.0.0.0:0")
	if got := portwatch.Holder("tcp", netip.AddrPortFrom(netip.IPv6Loopback(), any4.Port())); got != "" {
		t.Errorf("the wildcard of another family: got %q", got)
	}
	ln.Close()
	if got := portwatch.Holder("tcp", addr); got != "" {
		t.Errorf("closed: got %q", got)
	}
}

func TestHolderNamesTheUserWhoseProcessesMayNotBeRead(t *testing.T) {
	root := fakeProc(t)
	row := func(port, uid string) string {
		return "   0: 0100007F:" + port + " 00000000:0000 0A 00000000:00000000 00:00000000 00000000 " + uid + " 0 700 1 0 100 0 0 10 0\n"
	}
	write(t, root, "net/tcp", header4+row("1F90", "0")+row("1F91", "4123456"))
	for port, want := range map[uint16]string{8080: "uid 0 (root)", 8081: "uid 4123456", 8082: ""} {
		addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
		if got := portwatch.HolderIn(root, "tcp", addr); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
}

func TestHolderPrefersTheBetterExplanation(t *testing.T) {
	root := fakeProc(t)
	addProcess(t, root, 10, 1, "client", 701)
	addProcess(t, root, 11, 1, "exact", 702)
	addProcess(t, root, 12, 1, "wildcard", 703)
	addProcess(t, root, 13, 1, "ipv6", 704)
	established := strings.Replace(strings.Replace(listening(8080, 701), " 0A ", " 01 ", 1), "00000000:0000", "0100007F:0016", 1)
	any4 := strings.Replace(listening(8080, 703), "0100007F", "00000000", 1)
	any6 := strings.Replace(strings.Replace(listening(8080, 704), "0100007F", strings.Repeat("0", 32), 1), "00000000:0000", strings.Repeat("0", 32)+":0000", 1)
	addr := netip.MustParseAddrPort("127.0.0.1:8080")
	for _, tc := range []struct{ want, tcp, tcp6 string }{
		{"exact[11]", established + any4 + listening(8080, 702), any6},
		{"wildcard[12]", established + any4, any6},
		{"ipv6[13]", established, any6},
		{"client[10]", established, ""},
	} {
		write(t, root, "net/tcp", header4+tc.tcp)
		write(t, root, "net/tcp6", header6+tc.tcp6)
		if got := portwatch.HolderIn(root, "tcp", addr); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
	_ = os.RemoveAll(root)
	if got := portwatch.HolderIn(root, "tcp", addr); got != "" {
		t.Errorf("without procfs: got %q", got)
	}
}
