// Package dial connects to services of the machine that it runs on, and to nothing else:
// what a peer asks to be connected to is checked to be an address of this machine, or of
// one of its containers that it has announced.
package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// MaxPending is how many dials may wait at a time: for a link in its guest, and
// for a VM on the bridge. One more fails at once.
const MaxPending = 512

// ErrTooMany is that one.
var ErrTooMany = fmt.Errorf("%d connections wait for services that do not accept already", MaxPending)

// ErrNotLocal is that an address is not one of this machine.
var ErrNotLocal = errors.New("not an address of this machine")

// Also tells which addresses may be connected to although they are not this machine's; nil
// for none.
type Also func(netip.AddrPort) bool

// has may be asked of nil.
func (a Also) has(addr netip.AddrPort) bool { return a != nil && a(addr) }

// To connects to the first address of a target that answers.
func To(ctx context.Context, t wire.Target, also Also) (relay.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, wire.DialTimeout)
	defer cancel()
	if t.Network == wire.NetworkUnix {
		conn, err := Socket(ctx, t.Path)
		if err != nil {
			return nil, err
		}
		return relay.Unix(conn), nil
	}
	var errs []error
	for _, addr := range t.Addrs {
		conn, err := dialLocal(ctx, t.Network, addr, also)
		if err == nil {
			return relay.TCP(conn.(*net.TCPConn)), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialLocal connects to an address of this machine.
func dialLocal(ctx context.Context, network string, addr netip.AddrPort, also Also) (net.Conn, error) {
	addr, err := address(addr, also)
	if err != nil {
		return nil, err
	}
	// Keep-alives between sockets of one kernel find out nothing.
	d := net.Dialer{KeepAlive: -1}
	if network == wire.NetworkTCP {
		// A connection to itself, which package net sees and gives up too, is
		// reset then, and does not keep its port from the server that is to have it.
		d.Control = relay.ControlTCP
	}
	conn, err := d.DialContext(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	if err := NotToItself(conn); err != nil {
		return nil, err
	}
	return conn, nil
}

// NotToItself closes a socket that is connected to itself, and says that nobody
// is where it was to go. The kernel gives the port of a server that is not there
// to clients as well, so that one may get the very port that it dials.
func NotToItself(c net.Conn) error {
	if c.LocalAddr().String() != c.RemoteAddr().String() {
		return nil
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
	return &net.OpError{Op: "dial", Net: c.RemoteAddr().Network(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// address is where a socket that is bound to addr can be reached. A wildcard is
// what it is bound to, not where it can be reached: loopback stands for it.
func address(addr netip.AddrPort, also Also) (netip.AddrPort, error) {
	ip := addr.Addr()
	switch {
	case ip == netip.IPv4Unspecified():
		ip = loopback4
	case ip == netip.IPv6Unspecified():
		ip = netip.IPv6Loopback()
	case ip.IsLoopback():
	case ip.Is6() && ip.IsLinkLocalUnicast():
		zone, err := zoneOf(ip)
		if err != nil {
			return addr, err
		}
		ip = ip.WithZone(zone)
	default:
		if err := checkLocal(ip); err != nil && !also.has(addr) {
			return addr, err
		}
	}
	return netip.AddrPortFrom(ip, addr.Port()), nil
}

// Now is [To] where that takes no waiting: ok is false if it does, and for
// whatever else the target is to be dialled in the ordinary way.
func Now(t wire.Target) (s relay.Socket, ok bool) {
	addr, err := address(t.Addrs[0], nil)
	if err != nil || !addr.Addr().IsLoopback() {
		return s, false
	}
	return relay.DialAtOnce(addr)
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// zoneOf returns the interface that has a link-local address.
func zoneOf(ip netip.Addr) (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // gone meanwhile
		}
		for _, a := range addrs {
			prefix, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			if own, ok := netip.AddrFromSlice(prefix.IP); ok && own == ip {
				return i.Name, nil
			}
		}
	}
	return "", fmt.Errorf("%v: %w", ip, ErrNotLocal)
}
