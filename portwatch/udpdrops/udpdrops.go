// Package udpdrops asks the kernel what it has dropped of what was sent to a socket of this machine.
package udpdrops

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// Sizes of struct inet_diag_req_v2 and struct inet_diag_msg (include/uapi/linux/inet_diag.h).
	diagReqLen = 56
	diagMsgLen = 72
	// diagMemory is INET_DIAG_SKMEMINFO (include/uapi/linux/inet_diag.h), and
	// memoryDrops the index of SK_MEMINFO_DROPS among its numbers
	// (include/uapi/linux/sock_diag.h).
	diagMemory  = 7
	memoryDrops = 8
	// loopbackIndex is LOOPBACK_IFINDEX (include/net/flow.h): what one socket of a
	// machine sends to another arrives by that interface.
	loopbackIndex = 1
)

// ErrNoSocket is that no socket takes what is sent.
var ErrNoSocket = errors.New("no socket there")

// Of asks the kernel how many datagrams it has dropped because the buffer of the
// socket was full that takes, on this machine, what is sent from an address to another.
// It looks the socket up as for a datagram. The count is of all that were sent there,
// since the socket was opened, and wraps around. [ErrNoSocket] is that there is none.
func Of(from, to netip.AddrPort) (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{MessageBufferSize: 4 << 10})
	if err != nil {
		return 0, fmt.Errorf("open sock_diag: %w", err)
	}
	defer conn.Close()
	drops, err := ask(conn, from, to)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return 0, ErrNoSocket
	case err != nil:
		return 0, fmt.Errorf("look up the udp socket at %v: %w", to, err)
	}
	return drops, nil
}

func ask(conn *netlink.Conn, from, to netip.AddrPort) (uint32, error) {
	req := make([]byte, diagReqLen)
	family, src, dst := uint8(unix.AF_INET), from.Addr().Unmap(), to.Addr().Unmap()
	if !dst.Is4() {
		family = unix.AF_INET6
	}
	req[0], req[1], req[2] = family, unix.IPPROTO_UDP, 1<<(diagMemory-1)
	// For one UDP socket the kernel takes the source to be the other end's, as in a
	// datagram (udp_dump_one in net/ipv4/udp_diag.c).
	binary.BigEndian.PutUint16(req[8:], from.Port())
	binary.BigEndian.PutUint16(req[10:], to.Port())
	copy(req[12:], src.AsSlice())
	copy(req[28:], dst.AsSlice())
	binary.NativeEndian.PutUint32(req[44:], loopbackIndex)
	binary.NativeEndian.PutUint64(req[48:], 1<<64-1) // INET_DIAG_NOCOOKIE
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request},
		Data:   req,
	})
	if err != nil {
		return 0, err
	}
	for _, reply := range replies {
		if len(reply.Data) < diagMsgLen {
			continue
		}
		attrs, err := netlink.NewAttributeDecoder(reply.Data[diagMsgLen:])
		if err != nil {
			return 0, err
		}
		for attrs.Next() {
			if b := attrs.Bytes(); attrs.Type() == diagMemory && len(b) >= 4*(memoryDrops+1) {
				return binary.NativeEndian.Uint32(b[4*memoryDrops:]), nil
			}
		}
	}
	return 0, errors.New("the kernel does not say what it has dropped")
}
