package nat

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// extension takes in a match of iptables.
func (p *packet) extension(m *expr.Match) bool {
	switch info := m.Info.(type) {
	case *xt.Tcp:
		return p.within(protocol, []byte{unix.IPPROTO_TCP}, nil) && (info.InvFlags != 0 || p.narrow(ports{info.DstPorts[0], info.DstPorts[1]}))
	case *xt.Udp:
		return p.within(protocol, []byte{unix.IPPROTO_UDP}, nil) && (info.InvFlags != 0 || p.narrow(ports{info.DstPorts[0], info.DstPorts[1]}))
	case *xt.Unknown:
		if m.Name == "multiport" {
			return p.multiport(*info)
		}
	}
	return true
}

// multiport takes in struct xt_multiport_v1 of linux/netfilter/xt_multiport.h: which
// ports, how many, as many of them, for each whether it begins a range, inversion.
func (p *packet) multiport(b []byte) bool {
	const most, source = 15, 0
	if len(b) < 2+2*most+most+1 || b[0] == source || b[2+3*most] != 0 || b[1] > most {
		return true
	}
	var all []ports
	for i := 0; i < int(b[1]); i++ {
		at := func(i int) uint16 { return binary.NativeEndian.Uint16(b[2+2*i:]) }
		r := ports{at(i), at(i)}
		if b[2+2*most+i] != 0 && i+1 < int(b[1]) {
			i++
			r.last = at(i)
		}
		all = append(all, r)
	}
	return p.narrow(all...)
}

// target takes in a target of iptables.
func (p *packet) target(t *expr.Target) {
	if t.Name != "DNAT" {
		return
	}
	switch r := t.Info.(type) {
	case *xt.NatRange2:
		p.foundIP(r.MinIP, r.MinPort)
	case *xt.NatRange:
		p.foundIP(r.MinIP, r.MinPort)
	case *xt.NatIPv4MultiRangeCompat:
		for _, r := range *r {
			p.foundIP(r.MinIP, r.MinPort)
		}
	default:
		p.say("%s %s: a DNAT of an unknown form", p.table.Name, p.chain)
	}
}

func (p *packet) foundIP(ip []byte, port uint16) {
	addr, _ := netip.AddrFromSlice(ip)
	p.add(addr.Unmap(), port)
}
