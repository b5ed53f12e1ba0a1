package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

const nameLoopback = "loopback"

// loopbackLimit is how long a connection of this machine with itself may take.
const loopbackLimit = time.Second

// loopback connects to addresses that forwards are at: a firewall may be between, and the interface down.
func loopback(ctx context.Context, x *exam) (all []status.Check) {
	if lo, err := net.InterfaceByName("lo"); err == nil && lo.Flags&net.FlagUp == 0 {
		return []status.Check{ill(nameLoopback, "bring it up with: sudo ip link set lo up", "the interface lo is down, and nothing reaches localhost")}
	}
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for _, vm := range x.agent.VMs {
		if ip, err := netip.ParseAddr(vm.Loopback); err == nil {
			addrs = append(addrs, ip)
			break // the others are in the same network
		}
	}
	for _, ip := range addrs {
		err := connectToItself(ctx, ip)
		timeout, _ := errors.AsType[net.Error](err)
		switch {
		case err == nil:
		case ip.Is6() && errors.Is(err, unix.EADDRNOTAVAIL), ip.Is6() && errors.Is(err, unix.EAFNOSUPPORT):
			// Everything is on IPv4 then.
		case timeout != nil && timeout.Timeout(), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EPERM), errors.Is(err, unix.EHOSTUNREACH):
			all = append(all, ill(nameLoopback, "let this machine talk to itself with: sudo "+tables(ip)+" -I INPUT -i lo -j ACCEPT; if it is nftables' own rule, see: sudo nft list ruleset",
				"a firewall keeps connections to %v from this machine", ip))
		default:
			all = append(all, ill(nameLoopback, "see what is there with: ip address show lo", "no connection to %v: %v", ip, err))
		}
	}
	if all == nil {
		all = append(all, well(nameLoopback, "connections of this machine with itself arrive"))
	}
	return all
}

func tables(ip netip.Addr) string {
	if ip.Is6() {
		return "ip6tables"
	}
	return "iptables"
}

// connectToItself connects to a listener of this program's own.
func connectToItself(ctx context.Context, ip netip.Addr) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return err
	}
	defer l.Close()
	d := net.Dialer{Timeout: loopbackLimit}
	c, err := d.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return err
	}
	return c.Close()
}
