package udp

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/relay"
)

const (
	// receiveBuffer is what a socket asks for: datagrams arrive in bursts,
	// and the kernel drops what the buffer has no room for. The kernel gives
	// what net.core.rmem_max allows, and all of it to root.
	receiveBuffer = 4 << 20
	sendBuffer    = 1 << 20
)

// Peer is who sent a datagram, and the address it was sent to where the socket
// has no address of its own. It is zero on a connected socket.
type Peer struct {
	Addr  netip.AddrPort
	Local netip.Addr
}

// Socket is a UDP socket that never waits to send, and that needs no buffer
// while it waits to receive, for which it has a loop.
type Socket struct {
	fd      *relay.Descriptor
	local   netip.AddrPort
	dropped atomic.Uint32 // by the kernel, in all
	whole   atomic.Bool   // the kernel does not divide what this socket sends

	peer   netip.AddrPort // who it is for, if it is not connected
	closed func()         // called once it is closed; nil for nobody
	ended  chan struct{}  // closed by Close
	ending atomic.Bool

	handing sync.Mutex // held while a loop hands over what has come
	to      *receiving // nil while nobody receives; guarded by handing
}

// NewSocket takes over a socket, bound or connected. If it fails, the socket is left as
// it was.
func NewSocket(conn *net.UDPConn) (*Socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{local: conn.LocalAddr().(*net.UDPAddr).AddrPort(), ended: make(chan struct{})}
	local := s.local.Addr()
	var serr error
	err = raw.Control(func(fd uintptr) {
		fdi := int(fd)
		if unix.SetsockoptInt(fdi, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(fdi, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
		_ = unix.SetsockoptInt(fdi, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
		_ = unix.SetsockoptInt(fdi, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
		// Bursts that were sent as one arrive as one. Kernels before 5.0 do not know that, and
		// before 4.18 they send a burst as one long datagram.
		_ = unix.SetsockoptInt(fdi, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		s.whole.Store(unix.SetsockoptInt(fdi, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 0) != nil)
		switch {
		case !local.IsUnspecified():
		case local.Is4():
			serr = unix.SetsockoptInt(fdi, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		default:
			serr = unix.SetsockoptInt(fdi, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	if err = errors.Join(err, serr); err != nil {
		return nil, err
	}
	s.fd, err = relay.NewDescriptor(conn)
	return s, err
}

// SetPeer has datagrams go to an address to which the socket is not connected, so that
// answers from other ports arrive too, and closed be called once it is closed.
func (s *Socket) SetPeer(peer netip.AddrPort, closed func()) { s.peer, s.closed = peer, closed }

// Close closes the socket; Receive returns then.
func (s *Socket) Close() error {
	if s.ending.Swap(true) {
		return net.ErrClosed
	}
	s.fd.Unwatch() // the kernel does not forget what another process has too
	// Nor what it was set to: an older agent that takes the socket over knows no bursts.
	s.fd.EndBursts()
	s.fd.Close()
	close(s.ended)
	if s.closed != nil {
		s.closed()
	}
	return nil
}

// LocalAddr is the address that the socket is bound to.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }
