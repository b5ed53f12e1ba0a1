package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel/udp"
	"golang.org/x/sys/unix"
)

// UDP makes a socket for an address of this machine, which waits for nothing.
// A server on :: is reached by IPv4 where IPv6 is switched off.
func UDP(to netip.AddrPort, own *portwatch.Own, also Also) (*udp.Socket, error) {
	addr, err := address(to, also)
	if err != nil {
		return nil, err
	}
	if also.has(addr) {
		from, err := sourceTo(addr)
		if err != nil {
			return nil, err
		}
		return openUDP(from, addr, own)
	}
	s, err := besideUDP(addr, own)
	if err != nil && to.Addr() == netip.IPv6Unspecified() && !errors.Is(err, syscall.ECONNREFUSED) {
		s, err = besideUDP(netip.AddrPortFrom(loopback4, to.Port()), own)
	}
	return s, err
}

// sourceTo is the address of this machine from where the kernel would send to another.
func sourceTo(to netip.AddrPort) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) // sends nothing
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// besideUDP makes a socket at the address where a service of this machine is.
func besideUDP(to netip.AddrPort, own *portwatch.Own) (*udp.Socket, error) {
	from := to.Addr()
	if from.Is4() && from.IsLoopback() {
		from = loopback4 // as the kernel would, whose clients a service may let in by address
	}
	return openUDP(from, to, own)
}

// openUDP makes a socket at the address from where a service is talked to. It
// is not connected, or answers from another port would not arrive; the scan of what
// listens is told to leave it out.
func openUDP(from netip.Addr, to netip.AddrPort, own *portwatch.Own) (*udp.Socket, error) {
	network, level, option := "udp4", unix.IPPROTO_IP, unix.IP_RECVERR
	if to.Addr().Is6() {
		network, level, option = "udp6", unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	var inode uint64
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		var serr error
		if err := raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), level, option, 1) }); err != nil {
			return err
		}
		inode, err = own.Add(raw)
		return errors.Join(serr, err)
	}}
	conn, err := c.ListenPacket(context.Background(), network, netip.AddrPortFrom(from, 0).String())
	if err != nil {
		own.Remove(inode)
		return nil, err
	}
	var s *udp.Socket
	if conn.LocalAddr().(*net.UDPAddr).AddrPort() == to {
		err = syscall.ECONNREFUSED // nobody is there, or we would not have got the port
	} else {
		s, err = udp.NewSocket(conn.(*net.UDPConn))
	}
	if err != nil {
		_ = conn.Close()
		own.Remove(inode)
		return nil, err
	}
	s.SetPeer(to, func() { own.Remove(inode) })
	return s, nil
}
