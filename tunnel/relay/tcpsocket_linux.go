package relay

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is what every relayed TCP socket is set to, from the moment it exists:
// before it listens or connects. What a listener accepts inherits it (sk_clone in
// net/core/sock.c).

// ControlTCP prepares a socket that is going to listen or to connect, for a
// [net.ListenConfig] or a [net.Dialer]. Its connections are to be made a [Conn] by
// [TCP], and are reset when they are closed otherwise, if only because the process
// was killed: the kernel would say that all had been sent.
func ControlTCP(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { prepareTCP(int(fd)) })
}

func prepareTCP(fd int) {
	resetOnClose(fd)
	// Urgent data is a part of the stream here; else it would be lost.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
}

// ClientKeepAlive is for connections of clients that may be on another machine: when
// their network has gone, they are reset after two minutes. Between sockets of one
// kernel it finds out nothing.
var ClientKeepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

// keepAlive sets it.
func keepAlive(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(ClientKeepAlive.Idle/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(ClientKeepAlive.Interval/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, ClientKeepAlive.Count)
}

// resetOnClose sets a linger time of zero, which is how TCP is told to send a
// reset instead of a FIN (socket(7), SO_LINGER). On a unix socket it changes
// nothing.
func resetOnClose(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// endOnClose takes it back, where both directions have been proved to have ended.
func endOnClose(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
}

// sendUnpaced has a TCP socket on loopback send as fast as its peer reads. BBR, where
// a machine is set to use it, spreads what is sent over time as a network would
// like it. Reno does not, and is in every kernel (net/ipv4/tcp_cong.c).
func sendUnpaced(fd int) {
	_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
}
