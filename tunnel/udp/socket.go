package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is what a socket asks for: datagrams arrive in bursts,
	// and the kernel drops what the buffer has no room for. The kernel gives
	// what net.core.rmem_max allows, and all of it to root.
	receiveBuffer = 4 << 20
	sendBuffer    = 1 << 20
	// burst is how many datagrams are received before it is looked whether
	// the socket has been closed.
	burst = 64
	// maxErrors is after how many errors in a row, and nothing else, a
	// socket is given up.
	maxErrors = 64
)

// buffers have one byte more than can be carried, to see that a datagram is
// too long.
var buffers = sync.Pool{New: func() any { return new([wire.MaxDatagram + 1]byte) }}

var errTooLong = fmt.Errorf("a datagram is longer than %d bytes", wire.MaxDatagram)

// Peer is who sent a datagram, and the address it was sent to where the socket
// has no address of its own. It is zero on a connected socket.
type Peer struct {
	Addr  netip.AddrPort
	Local netip.Addr
}

// Socket is a UDP socket that never waits to send, and that needs no buffer
// while it waits to receive.
type Socket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	dropped atomic.Uint32 // by the kernel, in all

	peer   netip.AddrPort // who it is for, if it is not connected
	closed func()         // called once it is closed; nil for nobody
}

// NewSocket takes over a socket, bound or connected.
func NewSocket(conn *net.UDPConn) (*Socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{conn: conn, raw: raw}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	var serr error
	err = raw.Control(func(fd uintptr) {
		fdi := int(fd)
		if unix.SetsockoptInt(fdi, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(fdi, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
		_ = unix.SetsockoptInt(fdi, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
		_ = unix.SetsockoptInt(fdi, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
		switch {
		case !local.IsUnspecified():
		case local.Is4():
			serr = unix.SetsockoptInt(fdi, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		default:
			serr = unix.SetsockoptInt(fdi, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	return s, errors.Join(err, serr)
}

// SetPeer has datagrams go to an address to which the socket is not connected, so that
// answers from other ports arrive too, and closed be called once it is closed.
func (s *Socket) SetPeer(peer netip.AddrPort, closed func()) { s.peer, s.closed = peer, closed }

// Close closes the socket; Receive returns then.
func (s *Socket) Close() error {
	err := s.conn.Close()
	if s.closed != nil && !errors.Is(err, net.ErrClosed) {
		s.closed()
	}
	return err
}

// LocalAddr is the address that the socket is bound to.
func (s *Socket) LocalAddr() netip.AddrPort {
	return s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Receive hands over every datagram that arrives, and in trouble how many have
// been lost and why, until the socket is closed or fails for good, or until handle
// says that it is enough, which is no error. On a connected socket trouble is also
// that the peer refused a datagram. handle must not wait, and must keep nothing of its
// argument.
func (s *Socket) Receive(handle func(b []byte, from Peer) (enough bool), trouble func(lost uint32, err error)) error {
	failed, enough := 0, false
	var rerr error
	burst := func(fd uintptr) bool {
		buf := buffers.Get().(*[wire.MaxDatagram + 1]byte)
		defer buffers.Put(buf)
		var oob [128]byte
		for range burst {
			n, oobn, _, from, err := unix.Recvmsg(int(fd), buf[:], oob[:], unix.MSG_DONTWAIT)
			switch {
			case err == nil:
				failed = 0
				peer := Peer{Addr: addrPortOf(from)}
				if oobn > 0 {
					if lost := s.readControl(oob[:oobn], &peer); lost > 0 {
						trouble(lost, errReceiveBufferFull)
					}
				}
				if n > wire.MaxDatagram {
					trouble(1, errTooLong)
					continue
				}
				if enough = handle(buf[:n], peer); enough {
					return true
				}
			case errors.Is(err, unix.EAGAIN):
				failed = 0
				return false
			case errors.Is(err, unix.EINTR):
			default:
				if failed++; failed >= maxErrors {
					rerr = err
					return true
				}
				dropErrors(int(fd))
				trouble(0, err)
			}
		}
		return true
	}
	for rerr == nil && !enough {
		if err := s.raw.Read(burst); err != nil {
			return err
		}
	}
	return rerr
}

// dropErrors empties the queue of what the network said about datagrams, which a
// socket that is not connected has to have to be told at all (IP_RECVERR, ip(7)).
func dropErrors(fd int) {
	for {
		if _, _, _, _, err := unix.Recvmsg(fd, nil, nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

var errReceiveBufferFull = errors.New("the socket's receive buffer was full")

// readControl takes in what the kernel says beside a datagram, and returns how
// many it has dropped since the last one.
func (s *Socket) readControl(oob []byte, peer *Peer) (lost uint32) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return lost
		}
		oob = rest
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			total := binary.NativeEndian.Uint32(data)
			lost = total - s.dropped.Swap(total)
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			peer.Local = netip.AddrFrom4([4]byte(data[4:8])) // ipi_spec_dst
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			peer.Local = netip.AddrFrom16([16]byte(data[:16]))
		}
	}
	return lost
}

// Send sends a datagram to a peer, or, with none, to what the socket is connected
// to. It never waits: a full send buffer is an error.
func (s *Socket) Send(b []byte, to Peer) error {
	err := s.send(b, to)
	if errors.Is(err, unix.ECONNREFUSED) {
		// This told of an earlier datagram; this one was not sent.
		err = s.send(b, to)
	}
	return err
}

func (s *Socket) send(b []byte, to Peer) error {
	var serr error
	err := s.raw.Write(func(fd uintptr) bool {
		_, serr = unix.SendmsgN(int(fd), b, from(to.Local), sockaddrOf(to.Addr), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return !errors.Is(serr, unix.EINTR)
	})
	if err != nil {
		return err
	}
	return serr
}

// from has a datagram leave from an address.
func from(local netip.Addr) []byte {
	switch {
	case local.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	case local.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
	}
	return nil
}

func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// sockaddrOf is the inverse of addrPortOf; nil for none.
func sockaddrOf(a netip.AddrPort) unix.Sockaddr {
	switch ip := a.Addr(); {
	case ip.Is4():
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
	case ip.Is6():
		zone, _ := strconv.ParseUint(ip.Zone(), 10, 32)
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: ip.As16(), ZoneId: uint32(zone)}
	}
	return nil
}
