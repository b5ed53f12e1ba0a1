package guestagent

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nicKinds are the kinds of links, as `ip -d link` shows them, by which a machine may be
// on the network of its host: a card, which has none, the card of a container, and what
// is made of cards. All others are networks of programs in the machine, or tunnels.
var nicKinds = map[string]bool{"": true, "veth": true, "vlan": true, "bond": true, "team": true, "bridge": true}

// linkKinds are the kinds of the links of this machine, by index. What the kernel does
// not tell is missing.
func linkKinds() map[int]string {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil
	}
	defer c.Close()
	links, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfInfomsg),
	})
	if err != nil {
		return nil
	}
	kinds := make(map[int]string)
	for _, m := range links {
		if len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		attrs, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
		if err != nil {
			continue
		}
		for attrs.Next() {
			if attrs.Type() != unix.IFLA_LINKINFO {
				continue
			}
			attrs.Nested(func(info *netlink.AttributeDecoder) error {
				for info.Next() {
					if info.Type() == unix.IFLA_INFO_KIND {
						// The index is behind family, padding and type: struct ifinfomsg of linux/rtnetlink.h.
						kinds[int(binary.NativeEndian.Uint32(m.Data[4:]))] = info.String()
					}
				}
				return nil
			})
		}
	}
	return kinds
}
