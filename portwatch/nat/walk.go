package nat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// maxJumps is how far chains are followed: kube-proxy's go five deep.
	maxJumps = 8
	// maxSteps bounds the rules that are looked at, each as often as a way leads to it.
	maxSteps = 50_000
	// maxUnclear bounds the rules that are said not to be understood.
	maxUnclear = 8
)

// walker follows the rules that a packet of this machine would meet.
type walker struct {
	conn    *nftables.Conn
	rules   map[chainKey][]*nftables.Rule
	sets    map[setKey][]nftables.SetElement
	steps   int
	found   []Translation
	unclear []string
	err     error
}

type (
	chainKey struct {
		family nftables.TableFamily
		table  string
		name   string
	}
	setKey struct {
		family nftables.TableFamily
		table  string
		name   string
		id     uint32
	}
)

// match is which packets get to a rule, as far as it matters here. What else a rule wants,
// such as where a packet comes in, is left aside.
type match struct {
	proto string
	ports []ports // none for all
	addr  netip.Addr
}

type ports struct{ first, last uint16 }

// walk follows a chain for packets that match.
func (w *walker) walk(table *nftables.Table, chain string, m match, depth int) {
	if depth > maxJumps {
		w.say("%s %s: more than %d jumps lead there", table.Name, chain, maxJumps)
		return
	}
	k := chainKey{table.Family, table.Name, chain}
	rules, known := w.rules[k]
	if !known {
		var err error
		if rules, err = w.conn.GetRules(table, &nftables.Chain{Name: chain, Table: table}); err != nil {
			return // changed since it was listed: there will be an event
		}
		w.rules[k] = rules
	}
	for _, r := range rules {
		if w.steps++; w.steps > maxSteps || len(w.found) >= maxTranslations {
			w.err = fmt.Errorf("more than %d rules, or %d ports, are translated here; the rest is not announced", maxSteps, maxTranslations)
			return
		}
		p := packet{walker: w, table: table, chain: chain, depth: depth, match: m, loaded: make(map[uint32]field), values: make(map[uint32][]byte)}
		p.run(r.Exprs)
	}
}

func (w *walker) say(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); len(w.unclear) < maxUnclear && !slices.Contains(w.unclear, text) {
		w.unclear = append(w.unclear, text)
	}
}

// packet is a packet at a rule: what is known of it and of the registers.
type packet struct {
	*walker
	table  *nftables.Table
	chain  string
	depth  int
	match  match
	loaded map[uint32]field  // by register: which part of the packet is there
	values map[uint32][]byte // by register: what constant is there
}

// field is a part of a packet.
type field uint8

const (
	other field = iota // of no interest
	masked
	protocol
	dport
	daddr
	iif // where it came in: what this machine sends has none
)

// slot is the number of a register in units of 32 bits. The first four are of 128 bits
// (NFT_REG_1 to NFT_REG_4 of linux/netfilter/nf_tables.h), and the same as sixteen others.
func slot(register uint32) uint32 {
	if register >= unix.NFT_REG_1 && register <= unix.NFT_REG_4 {
		return unix.NFT_REG32_00 + 4*(register-unix.NFT_REG_1)
	}
	return register
}

// run goes through a rule until a condition of it is not met.
func (p *packet) run(exprs []expr.Any) {
	for i, e := range exprs {
		ok := true
		switch e := e.(type) {
		case *expr.Meta:
			p.loaded[slot(e.Register)] = metaField(e.Key)
		case *expr.Payload:
			p.loaded[slot(e.DestRegister)] = p.payloadField(e)
		case *expr.Bitwise:
			p.loaded[slot(e.DestRegister)] = masked
		case *expr.Fib:
			p.loaded[slot(e.Register)] = other
		case *expr.Ct:
			p.loaded[slot(e.Register)] = other
		case *expr.Immediate:
			p.values[slot(e.Register)] = e.Data
		case *expr.Cmp:
			ok = p.compare(p.loaded[slot(e.Register)], e.Op, e.Data)
		case *expr.Range:
			ok = e.Op != expr.CmpOpEq || p.within(p.loaded[slot(e.Register)], e.FromData, e.ToData)
		case *expr.Match:
			ok = p.extension(e)
		case *expr.Lookup:
			if e.IsDestRegSet && !e.Invert {
				p.lookUp(e, exprs[i+1:])
				return
			}
			ok = p.isIn(e)
		case *expr.Verdict:
			if e.Kind == expr.VerdictJump || e.Kind == expr.VerdictGoto {
				p.walk(p.table, e.Chain, p.match, p.depth+1)
			}
			return
		case *expr.NAT:
			if e.Type == expr.NATTypeDestNAT {
				addr, _ := netip.AddrFromSlice(p.values[slot(e.RegAddrMin)])
				p.add(addr, number(p.values[slot(e.RegProtoMin)]))
			}
			return
		case *expr.Target:
			p.target(e)
			return
		}
		if !ok {
			return
		}
	}
}

func metaField(key expr.MetaKey) field {
	switch key {
	case expr.MetaKeyL4PROTO:
		return protocol
	case expr.MetaKeyIIF, expr.MetaKeyIIFNAME:
		return iif
	}
	return other
}

// Offsets of linux/ip.h, linux/ipv6.h, linux/tcp.h and linux/udp.h.
func (p *packet) payloadField(e *expr.Payload) field {
	switch [3]uint32{uint32(e.Base), e.Offset, e.Len} {
	case [3]uint32{uint32(expr.PayloadBaseTransportHeader), 2, 2}:
		return dport
	case [3]uint32{uint32(expr.PayloadBaseNetworkHeader), 9, 1}, [3]uint32{uint32(expr.PayloadBaseNetworkHeader), 6, 1}:
		return protocol
	case [3]uint32{uint32(expr.PayloadBaseNetworkHeader), 16, 4}, [3]uint32{uint32(expr.PayloadBaseNetworkHeader), 24, 16}:
		return daddr
	}
	return other
}

// compare narrows the match by a comparison, and reports whether anything can match.
func (p *packet) compare(f field, op expr.CmpOp, data []byte) bool {
	switch {
	case f == iif:
		return op != expr.CmpOpEq
	case op == expr.CmpOpEq:
		return p.within(f, data, data)
	case op == expr.CmpOpGte && f == dport:
		return p.narrow(ports{number(data), 65535})
	case op == expr.CmpOpLte && f == dport:
		return p.narrow(ports{0, number(data)})
	}
	return true
}

// within narrows the match to values between two.
func (p *packet) within(f field, from, to []byte) bool {
	switch f {
	case iif:
		return false
	case protocol:
		name := ""
		if len(from) > 0 {
			name = protocols[from[0]]
		}
		if name == "" || p.match.proto != "" && p.match.proto != name {
			return false
		}
		p.match.proto = name
	case dport:
		return p.narrow(ports{number(from), number(to)})
	case daddr:
		addr, ok := netip.AddrFromSlice(from)
		if !ok || !slices.Equal(from, to) {
			return true // some of a network's, this machine's perhaps among them
		}
		if p.match.addr.IsValid() && p.match.addr != addr {
			return false
		}
		p.match.addr = addr
	}
	return true
}

var protocols = map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}

// narrow leaves of the ports those in some ranges.
func (p *packet) narrow(to ...ports) bool {
	if p.match.ports == nil {
		p.match.ports = to
		return len(to) > 0
	}
	var both []ports
	for _, a := range p.match.ports {
		for _, b := range to {
			if r := (ports{max(a.first, b.first), min(a.last, b.last)}); r.first <= r.last {
				both = append(both, r)
			}
		}
	}
	p.match.ports = both
	return len(both) > 0
}

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

// add notes a translation.
func (p *packet) add(addr netip.Addr, port uint16) {
	switch {
	case !addr.IsValid():
		p.say("%s %s: a DNAT whose address is not in the rule", p.table.Name, p.chain)
	case len(p.match.ports) == 0:
		p.say("%s %s: a DNAT of all ports to %v", p.table.Name, p.chain, addr)
	default:
		for _, proto := range []string{"tcp", "udp"} {
			for _, r := range p.match.ports {
				if p.match.proto == "" || p.match.proto == proto {
					p.found = append(p.found, Translation{Proto: proto, First: r.first, Last: r.last, Addr: p.match.addr, To: netip.AddrPortFrom(addr, port)})
				}
			}
		}
	}
}

// lookUp takes in a map: for each element of it that can match, a verdict follows, or the
// rest of the rule with its value.
func (p *packet) lookUp(e *expr.Lookup, rest []expr.Any) {
	for _, el := range p.elements(e) {
		one := *p
		one.match.ports = slices.Clone(p.match.ports)
		if !one.hasKey(slot(e.SourceRegister), el) {
			continue
		}
		if e.DestRegister == unix.NFT_REG_VERDICT {
			if v := verdict(el.Val); v != nil {
				one.run([]expr.Any{v})
			}
			continue
		}
		// An address, and a port behind it if there is one.
		at, size := slot(e.DestRegister), 4
		if len(el.Val) >= 16 {
			size = 16
		}
		size = min(size, len(el.Val))
		one.values = map[uint32][]byte{at: el.Val[:size], at + uint32(size)/4: el.Val[size:]}
		one.run(rest)
	}
}

// verdict reads the verdict of an element, NFTA_VERDICT_* of linux/netfilter/nf_tables.h;
// nil for what is none.
func verdict(b []byte) *expr.Verdict {
	attrs, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil
	}
	attrs.ByteOrder = binary.BigEndian
	v := &expr.Verdict{}
	for attrs.Next() {
		switch attrs.Type() {
		case unix.NFTA_VERDICT_CODE:
			v.Kind = expr.VerdictKind(int32(attrs.Uint32()))
		case unix.NFTA_VERDICT_CHAIN:
			v.Chain = attrs.String()
		}
	}
	return v
}

// isIn narrows the match to the elements of a set.
func (p *packet) isIn(e *expr.Lookup) bool {
	if e.Invert || p.loaded[slot(e.SourceRegister)] != dport {
		return e.Invert || p.loaded[slot(e.SourceRegister)] != iif
	}
	var in []ports
	for _, el := range p.elements(e) {
		in = append(in, ports{number(el.Key), max(number(el.Key), number(el.KeyEnd))})
	}
	return p.narrow(in...)
}

// hasKey narrows the match to the key of an element, which may be several fields, each
// padded to 32 bits.
func (p *packet) hasKey(at uint32, el nftables.SetElement) bool {
	key, end := el.Key, el.KeyEnd
	if len(end) != len(key) {
		end = key
	}
	for len(key) > 0 {
		size := map[field]int{protocol: 1, dport: 2, daddr: 4}[p.loaded[at]]
		if p.loaded[at] == daddr && len(key) >= 16 && p.table.Family == nftables.TableFamilyIPv6 {
			size = 16
		}
		padded := max(4, size)
		if size > 0 && size <= len(key) && !p.within(p.loaded[at], key[:size], end[:size]) {
			return false
		}
		padded = min(padded, len(key))
		key, end, at = key[padded:], end[padded:], at+uint32(padded+3)/4
	}
	return true
}

func (p *packet) elements(e *expr.Lookup) []nftables.SetElement {
	k := setKey{p.table.Family, p.table.Name, e.SetName, e.SetID}
	elements, known := p.sets[k]
	if !known {
		set := &nftables.Set{Table: p.table, Name: e.SetName, ID: e.SetID}
		if sets, err := p.conn.GetSets(p.table); err == nil {
			if i := slices.IndexFunc(sets, func(s *nftables.Set) bool { return s.Name == e.SetName }); i >= 0 {
				set = sets[i]
			}
		}
		elements, _ = p.conn.GetSetElements(set) // changed since: there will be an event
		elements = intervals(elements)
		p.sets[k] = elements
	}
	return elements
}

// intervals gives the elements of a set that has intervals their ends: each is followed by
// the first key that is not in it any more.
func intervals(elements []nftables.SetElement) (out []nftables.SetElement) {
	slices.SortFunc(elements, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	for i, el := range elements {
		if el.IntervalEnd {
			continue
		}
		if i+1 < len(elements) && elements[i+1].IntervalEnd && len(el.Key) == 2 {
			el.KeyEnd = binary.BigEndian.AppendUint16(nil, number(elements[i+1].Key)-1)
		}
		out = append(out, el)
	}
	return out
}

// number reads a port.
func number(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
