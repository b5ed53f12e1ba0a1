package portwatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sizes of struct inet_diag_req_v2 and struct inet_diag_msg, and the offset of
// the struct inet_diag_sockid that both hold (include/uapi/linux/inet_diag.h).
const (
	diagReqLen = 56
	diagMsgLen = 72
)

// diagV6Only is INET_DIAG_SKV6ONLY, the kernel tells it of every IPv6 socket that
// is not connected (include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c).
const diagV6Only = 11

// diag is a netlink socket for sock_diag dumps.
type diag struct {
	conn *netlink.Conn
}

func dialDiag() (*diag, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{
		// The kernel fills at most 32 KiB per message of a dump
		// (netlink_dump in net/netlink/af_netlink.c).
		MessageBufferSize: 64 << 10,
	})
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	return &diag{conn: conn}, nil
}

func (d *diag) close() error { return d.conn.Close() }

// candidates appends the listening TCP, or all UDP, sockets of a place. One that is
// connected during the dump is in it once: both states come from one walk.
func (d *diag) candidates(p place, sockets []socket) ([]socket, error) {
	err := d.dump(p, func(s socket) {
		if s.candidate() {
			sockets = append(sockets, s)
		}
	})
	return sockets, err
}

// dump hands over every listening TCP, or every UDP socket, of a place; those of all
// ports if its port is 0.
func (d *diag) dump(p place, each func(socket)) error {
	ipnum, states := uint8(unix.IPPROTO_TCP), uint32(1<<stateListen)
	if p.proto == "udp" {
		ipnum, states = unix.IPPROTO_UDP, 1<<stateClose|1<<stateEstablished
	}
	req := make([]byte, diagReqLen)
	req[0], req[1] = p.family, ipnum
	binary.NativeEndian.PutUint32(req[4:], states)
	binary.BigEndian.PutUint16(req[8:], p.port)
	sent, err := d.conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
		Data:   req,
	})
	if err != nil {
		return fmt.Errorf("dump %s sockets of family %d: %w", p.proto, p.family, err)
	}
	for reply, err := range d.conn.ReceiveIter() {
		if err == nil {
			err = netlink.Validate(sent, []netlink.Message{reply})
		}
		var sock socket
		if err == nil {
			sock, err = parseDiag(p.proto, reply.Data)
		}
		if err != nil {
			return fmt.Errorf("dump %s sockets of family %d: %w", p.proto, p.family, err)
		}
		each(sock)
	}
	return nil
}

// errNotAlone is what one says of a socket that is not there, or not the one that packets to its address are for.
var errNotAlone = errors.New("no such socket, or not the only one")

// one asks for the TCP listener with a cookie at an address. It is found as for a packet, without a walk over all
// that listen; so is another one that takes what comes there.
func (d *diag) one(at netip.AddrPort, cookie uint64) (socket, error) {
	req := make([]byte, diagReqLen)
	req[0], req[1] = unix.AF_INET, unix.IPPROTO_TCP
	if at.Addr().Is6() {
		req[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(req[4:], 1<<stateListen)
	binary.BigEndian.PutUint16(req[8:], at.Port())
	copy(req[12:28], at.Addr().AsSlice())
	binary.NativeEndian.PutUint32(req[48:], uint32(cookie))
	binary.NativeEndian.PutUint32(req[52:], uint32(cookie>>32))
	replies, err := d.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request},
		Data:   req,
	})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESTALE): // sock_diag_check_cookie in net/core/sock_diag.c
		return socket{}, errors.Join(errNotAlone, err)
	case err != nil || len(replies) != 1:
		return socket{}, fmt.Errorf("ask for the listener at %v: %d replies, %w", at, len(replies), err)
	}
	return parseDiag("tcp", replies[0].Data)
}

// parseDiag decodes a struct inet_diag_msg, and of the attributes after it the
// one that says whether an IPv6 socket takes IPv4 too.
func parseDiag(proto string, b []byte) (socket, error) {
	if len(b) < diagMsgLen {
		return socket{}, fmt.Errorf("inet_diag_msg of %d bytes, want %d", len(b), diagMsgLen)
	}
	size := 4
	switch b[0] {
	case unix.AF_INET:
	case unix.AF_INET6:
		size = 16
	default:
		return socket{}, fmt.Errorf("inet_diag_msg of address family %d", b[0])
	}
	// The ports are at 4 and 6, the addresses at 8 and 24, all in network
	// byte order; the numbers after them are in the machine's. The cookie is two of
	// them, the lower half first.
	local, _ := netip.AddrFromSlice(b[8 : 8+size])
	remote, _ := netip.AddrFromSlice(b[24 : 24+size])
	v6only := false
	if b[0] == unix.AF_INET6 { // else there is none, in any of thousands of rows
		if attrs, err := netlink.NewAttributeDecoder(b[diagMsgLen:]); err == nil {
			for attrs.Next() {
				if attrs.Type() == diagV6Only {
					v6only = attrs.Uint8() == 1
				}
			}
		}
	}
	return socket{
		proto:  proto,
		family: b[0],
		cookie: uint64(binary.NativeEndian.Uint32(b[44:])) | uint64(binary.NativeEndian.Uint32(b[48:]))<<32,
		addr:   netip.AddrPortFrom(local.Unmap(), binary.BigEndian.Uint16(b[4:])),
		remote: netip.AddrPortFrom(remote.Unmap(), binary.BigEndian.Uint16(b[6:])),
		state:  b[1],
		uid:    binary.NativeEndian.Uint32(b[64:]),
		inode:  uint64(binary.NativeEndian.Uint32(b[68:])),
		device: binary.NativeEndian.Uint32(b[40:]),
		v6only: v6only,
	}, nil
}
