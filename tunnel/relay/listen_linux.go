package relay

import (
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"golang.org/x/sys/unix"
)

// ListenTCP opens a listener as [net.ListenTCP] does, one on :: for IPv6 alone, and shows its socket to take. Go's
// poller, out of which an acceptor would take it again, never has it: that is some ten system calls fewer.
func ListenTCP(at netip.AddrPort, take func(syscall.RawConn) error) (*Acceptor, error) {
	network, family, address := "tcp6", unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()})
	if at.Addr().Is4() {
		network, family, address = "tcp4", unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	err = os.NewSyscallError("socket", err)
	a := &Acceptor{fd: fd}
	if err == nil {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) // which IPv4 has not
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		a.prepareTCP(at.Addr().IsLoopback())
		err = os.NewSyscallError("bind", unix.Bind(fd, address))
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, 1<<31-1)) // the kernel cuts it to net.core.somaxconn
	}
	if err == nil {
		err = take(rawSocket(fd))
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, &net.OpError{Op: "listen", Net: network, Addr: net.TCPAddrFromAddrPort(at), Err: err}
	}
	reserve.StockLast()
	return a, nil
}

// rawSocket is a descriptor that is shown to somebody for as long as the call lasts, and not waited for.
type rawSocket int

func (s rawSocket) Control(f func(fd uintptr)) error { f(uintptr(s)); return nil }
func (rawSocket) Read(func(fd uintptr) bool) error   { return syscall.EINVAL }
func (rawSocket) Write(func(fd uintptr) bool) error  { return syscall.EINVAL }
