package setup

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
)

// use is a subnet that is not free, and whose it is.
type use struct {
	prefix netip.Prefix
	by     string
}

func overlapping(subnet netip.Prefix, uses []use) (use, bool) {
	for _, u := range uses {
		if u.prefix.Overlaps(subnet) {
			return u, true
		}
	}
	return use{}, false
}

func containing(addr netip.Addr, uses []use) (use, bool) {
	return overlapping(netip.PrefixFrom(addr, addr.BitLen()), uses)
}

// privateRanges are those of RFC 1918, the one that VPNs and companies use least first.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("10.0.0.0/8"),
}

// freeSubnet proposes a private subnet of the same size: the next ones behind the wanted one within its private range,
// then those of the other ranges. ok is false when all are taken.
func freeSubnet(wanted netip.Prefix, uses []use) (free netip.Prefix, ok bool) {
	ranges := slices.Clone(privateRanges)
	if i := slices.IndexFunc(ranges, func(r netip.Prefix) bool { return r.Contains(wanted.Addr()) }); i > 0 {
		ranges[0], ranges[i] = ranges[i], ranges[0]
	}
	for _, within := range ranges {
		if wanted.Bits() < within.Bits() {
			continue
		}
		first, size := number(within.Addr()), uint32(1)<<(32-wanted.Bits())
		count := uint32(1) << (wanted.Bits() - within.Bits())
		offset := uint32(0)
		if within.Contains(wanted.Addr()) {
			offset = (number(wanted.Addr()) - first) / size
		}
		for i := range min(count, 1<<16) {
			candidate := netip.PrefixFrom(addrOf(first+(offset+i)%count*size), wanted.Bits())
			if _, taken := overlapping(candidate, uses); !taken {
				return candidate, true
			}
		}
	}
	return netip.Prefix{}, false
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addrOf(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// The shortest prefix that counts as a subnet in use. Shorter ones are default routes and the halves of the address
// space by which VPNs override them.
const shortestRoute = 8

// hostRoutes lists the IPv4 subnets that the host's routing tables lead to, all tables included: VPNs keep theirs apart.
func hostRoutes() ([]use, error) {
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, syscall.AF_INET)
	if err != nil {
		return nil, os.NewSyscallError("reading the routing tables", err)
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil, os.NewSyscallError("reading the routing tables", err)
	}
	var uses []use
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWROUTE || len(m.Data) < syscall.SizeofRtMsg {
			continue
		}
		// struct rtmsg of linux/rtnetlink.h: byte 1 is the length of the destination, byte 7 the type of the route.
		bits, kind := int(m.Data[1]), m.Data[7]
		if kind != syscall.RTN_UNICAST || bits < shortestRoute {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, os.NewSyscallError("reading the routing tables", err)
		}
		var dst netip.Addr
		dev := ""
		for _, a := range attrs {
			switch {
			case a.Attr.Type == syscall.RTA_DST:
				dst, _ = netip.AddrFromSlice(a.Value)
			case a.Attr.Type == syscall.RTA_OIF && len(a.Value) == 4:
				if iface, err := net.InterfaceByIndex(int(binary.NativeEndian.Uint32(a.Value))); err == nil {
					dev = " dev " + iface.Name
				}
			}
		}
		if prefix, err := dst.Prefix(bits); err == nil {
			uses = append(uses, use{prefix, fmt.Sprintf("the route %v%s", prefix, dev)})
		}
	}
	return uses, nil
}
