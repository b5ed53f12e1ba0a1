package relay

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// DialAtOnce connects to an address on loopback, where the kernel is done with the
// three-way handshake before connect(2) returns. It takes five system calls, and no
// detour through Go's poller. When the connection is not there at once, for whatever
// reason, ok is false and the address is to be dialled in the ordinary way.
func DialAtOnce(addr netip.AddrPort) (s Socket, ok bool) {
	family, sa := sockaddr(addr)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, false
	}
	if reserve.Check(fd) != nil {
		_ = unix.Close(fd)
		return s, false
	}
	prepareTCP(fd)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	sendUnpaced(fd)
	err = unix.Connect(fd, sa)
	if err == unix.EINPROGRESS {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, perr := unix.Poll(ready, 0); perr == nil && n == 1 && ready[0].Revents == unix.POLLOUT {
			err = nil
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return s, false
	}
	if own, err := unix.Getsockname(fd); err != nil || addrOf(own) == addr {
		// Connected to itself, see NotToItself in package dial.
		resetOnClose(fd)
		_ = unix.Close(fd)
		return s, false
	}
	return newSocket(fd), true
}

func sockaddr(a netip.AddrPort) (family int, sa unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
