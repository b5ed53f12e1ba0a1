package dial

import (
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// rtmsgLen is the size of struct rtmsg (include/uapi/linux/rtnetlink.h).
const rtmsgLen = 12

// checkLocal asks the kernel whether packets to an address stay on this machine.
// They may although no interface has it: cloud agents give a machine whole ranges
// with ip route add local.
func checkLocal(ip netip.Addr) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("route to %v: %w", ip, err)
	}
	defer conn.Close()
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.RTA_DST, Data: ip.AsSlice()}})
	if err != nil {
		return err
	}
	request := make([]byte, rtmsgLen, rtmsgLen+len(attrs))
	request[0], request[1] = unix.AF_INET6, uint8(ip.BitLen())
	if ip.Is4() {
		request[0] = unix.AF_INET
	}
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request},
		Data:   append(request, attrs...),
	})
	// The kind of the route is the eighth byte of the answer.
	if err != nil || len(replies) != 1 || len(replies[0].Data) < rtmsgLen || replies[0].Data[7] != unix.RTN_LOCAL {
		return fmt.Errorf("%v: %w", ip, ErrNotLocal)
	}
	return nil
}
