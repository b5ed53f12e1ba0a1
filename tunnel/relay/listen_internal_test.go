package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func noted(syscall.RawConn) error { return nil }

// gos is what package net listens with, set as a relayed socket is.
func gos(at string) (net.Listener, error) {
	c := net.ListenConfig{KeepAlive: -1, Control: ControlTCP}
	c.SetMultipathTCP(false)
	network := "tcp6"
	if netip.MustParseAddrPort(at).Addr().Is4() {
		network = "tcp4"
	}
	return c.Listen(context.Background(), network, at)
}

// kept is what a listener is set to, in the kernel's words.
func kept(t *testing.T, fd int) (all map[string]int) {
	t.Helper()
	all = make(map[string]int)
	for name, o := range map[string][2]int{
		"SO_REUSEADDR": {unix.SOL_SOCKET, unix.SO_REUSEADDR}, "SO_REUSEPORT": {unix.SOL_SOCKET, unix.SO_REUSEPORT},
		"SO_OOBINLINE": {unix.SOL_SOCKET, unix.SO_OOBINLINE}, "SO_KEEPALIVE": {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		"SO_PROTOCOL": {unix.SOL_SOCKET, unix.SO_PROTOCOL}, "SO_DOMAIN": {unix.SOL_SOCKET, unix.SO_DOMAIN},
		"TCP_NODELAY": {unix.IPPROTO_TCP, unix.TCP_NODELAY}, "IPV6_V6ONLY": {unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
	} {
		value, err := unix.GetsockoptInt(fd, o[0], o[1])
		if err != nil {
			value = -1
		}
		all[name] = value
	}
	for name, get := range map[string]int{"F_GETFD": unix.F_GETFD, "F_GETFL": unix.F_GETFL} {
		value, err := unix.FcntlInt(uintptr(fd), get, 0)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = value
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	all["backlog"] = int(info.Sacked) // of a listener; tcp_get_info in net/ipv4/tcp.c
	return all
}

func TestAListenerOfOursIsSetAsGos(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		l, err := gos(at)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := NewAcceptor(l)
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		ours, err := ListenTCP(netip.MustParseAddrPort(at), noted)
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		want, got := kept(t, theirs.fd), kept(t, ours.fd)
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %d, and %d where Go listens", at, name, got[name], value)
			}
		}
	}
}

func TestAListenerThatCannotBeSaysWhyAsGosDoes(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for at, want := range map[string]error{
		taken.Addr().String(): unix.EADDRINUSE,
		"192.0.2.1:8080":      unix.EADDRNOTAVAIL,
		"[2001:db8::1]:8080":  unix.EADDRNOTAVAIL,
	} {
		_, theirs := gos(at)
		_, ours := ListenTCP(netip.MustParseAddrPort(at), noted)
		if !errors.Is(ours, want) || ours.Error() != theirs.Error() {
			t.Errorf("%s: %v; Go says: %v", at, ours, theirs)
		}
	}
}

// Whoever does not want the socket has it closed.
func TestAListenerThatIsNotWantedIsClosed(t *testing.T) {
	refused := errors.New("not wanted")
	var at netip.AddrPort
	_, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"), func(c syscall.RawConn) error {
		_ = c.Control(func(fd uintptr) {
			name, _ := unix.Getsockname(int(fd))
			at = addrOf(name)
		})
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("%v; want what the taker said", err)
	}
	if c, err := net.Dial("tcp", at.String()); !errors.Is(err, unix.ECONNREFUSED) {
		if err == nil {
			_ = c.Close()
		}
		t.Errorf("%v: %v; want a refusal", at, err)
	}
}
