package setup

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"golang.org/x/sys/unix"
)

// natPorts reads the host ports that the kernel's packet filter translates to addresses which wanted accepts. A user who
// may not read the rules gets none.
func natPorts(wanted func(netip.Addr) bool) []libvirt.HostPort {
	conn, err := nftables.New()
	if err != nil {
		return nil
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil
	}
	var ports []libvirt.HostPort
	for _, chain := range chains {
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			continue // changed since it was listed
		}
		for _, rule := range rules {
			if p, ok := natPort(rule.Exprs); ok && wanted(p.Guest.Addr()) {
				ports = append(ports, p.HostPort)
			}
		}
	}
	return ports
}

type translation struct{ libvirt.HostPort }

// natPort reads one rule, as nft writes it or as iptables-nft does. ok is false for a rule that translates no destination.
func natPort(exprs []expr.Any) (p translation, ok bool) {
	p.HostPort = libvirt.HostPort{By: "dnat", Proto: "any"}
	registers := map[uint32][]byte{} // what immediate values were loaded into
	loaded := map[uint32]expr.Any{}  // what packet data was loaded into
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			loaded[e.Register] = e
		case *expr.Payload:
			loaded[e.DestRegister] = e
		case *expr.Immediate:
			registers[e.Register] = e.Data
		case *expr.Cmp:
			p.compare(loaded[e.Register], e.Op, e.Data)
		case *expr.Range:
			if e.Op == expr.CmpOpEq {
				p.compare(loaded[e.Register], expr.CmpOpGte, e.FromData)
				p.compare(loaded[e.Register], expr.CmpOpLte, e.ToData)
			}
		case *expr.Match:
			p.match(e)
		case *expr.NAT:
			if e.Type != expr.NATTypeDestNAT {
				continue
			}
			if addr, valid := netip.AddrFromSlice(registers[e.RegAddrMin]); valid {
				p.Guest, ok = netip.AddrPortFrom(addr, portIn(registers[e.RegProtoMin])), true
			}
		case *expr.Target:
			r, is := e.Info.(*xt.NatRange2)
			if !is || e.Name != "DNAT" {
				continue
			}
			if addr, valid := netip.AddrFromSlice(r.MinIP); valid {
				p.Guest, ok = netip.AddrPortFrom(addr.Unmap(), r.MinPort), true
			}
		}
	}
	return p, ok
}

// compare takes over a comparison of the protocol, the destination address or the destination port.
func (p *translation) compare(loaded expr.Any, op expr.CmpOp, data []byte) {
	switch l := loaded.(type) {
	case *expr.Meta:
		if l.Key == expr.MetaKeyL4PROTO && op == expr.CmpOpEq && len(data) == 1 {
			p.Proto = protocol(data[0])
		}
	case *expr.Payload:
		switch {
		case l.Base == expr.PayloadBaseTransportHeader && l.Offset == 2 && l.Len == 2 && len(data) == 2:
			port := binary.BigEndian.Uint16(data)
			if op == expr.CmpOpEq || op == expr.CmpOpGte {
				p.First = port
			}
			if op == expr.CmpOpEq || op == expr.CmpOpLte {
				p.Last = port
			}
		case l.Base == expr.PayloadBaseNetworkHeader && l.Offset == 9 && l.Len == 1 && op == expr.CmpOpEq && len(data) == 1:
			p.Proto = protocol(data[0]) // as iptables-nft has it from 1.8.10 on
		case l.Base == expr.PayloadBaseNetworkHeader && l.Offset == 16 && l.Len == 4 && op == expr.CmpOpEq:
			p.Addr, _ = netip.AddrFromSlice(data)
		}
	}
}

// match takes over the ports of an iptables match.
func (p *translation) match(m *expr.Match) {
	switch info := m.Info.(type) {
	case *xt.Tcp:
		p.Proto, p.First, p.Last = "tcp", info.DstPorts[0], info.DstPorts[1]
	case *xt.Udp:
		p.Proto, p.First, p.Last = "udp", info.DstPorts[0], info.DstPorts[1]
	}
}

// portIn reads a port from a register; 0 for an empty one.
func portIn(register []byte) uint16 {
	if len(register) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(register)
}

func protocol(number byte) string {
	switch number {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	}
	return "any"
}
