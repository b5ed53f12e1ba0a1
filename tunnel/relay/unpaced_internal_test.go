package relay

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// What is sent over loopback is not paced, whatever the machine uses for its network; what may leave the machine is left alone.
func TestOnlyLoopbackIsSentUnpaced(t *testing.T) {
	for addr, unpaced := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": true, "0.0.0.0:0": false} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		usual, err := copyDescriptor(l)
		if err != nil {
			t.Fatal(err)
		}
		want := congestionControl(t, usual)
		_ = unix.Close(usual)
		if unpaced {
			want = "reno"
		}
		port := netip.MustParseAddrPort(l.Addr().String()).Port()
		a, err := NewAcceptor(l)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		dialled, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddrPort(addr).Addr(), port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer dialled.Close()
		accepted, _, err := unix.Accept(a.fd)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(accepted) }()
		if got := congestionControl(t, accepted); got != want {
			t.Errorf("a client of %s is sent to by %s, want %s", addr, got, want)
		}
	}
}

func TestAServiceOnLoopbackIsSentToUnpaced(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	port := uint16(32767)
	for ; unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}) != nil; port-- {
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	s, ok := DialAtOnce(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	if !ok {
		t.Fatal("no connection")
	}
	defer func() { _ = unix.Close(s.d.fd) }()
	if got := congestionControl(t, s.d.fd); got != "reno" {
		t.Errorf("a service is sent to by %s, want reno", got)
	}
}

func TestAConnectionWithinOneMachineIsSentUnpaced(t *testing.T) {
	dialled, _ := tcpPair(t)
	raw, err := dialled.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	TCP(dialled)
	_ = raw.Control(func(fd uintptr) {
		if got := congestionControl(t, int(fd)); got != "reno" {
			t.Errorf("the other end is sent to by %s, want reno", got)
		}
	})
}

func congestionControl(t *testing.T, fd int) string {
	t.Helper()
	name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	one, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	two, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close(); two.Close() })
	return one.(*net.TCPConn), two.(*net.TCPConn)
}
