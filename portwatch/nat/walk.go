package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
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

// walker follows the rules that a packet would meet.
type walker struct {
	conn       *nftables.Conn
	everything bool // translations of all ports count too
	incoming   bool // the packet comes from elsewhere
	rules      map[chainKey][]*nftables.Rule
	sets       map[setKey][]nftables.SetElement
	steps      int
	found      []Translation
	unclear    []string
	err        error
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
		if w.full() {
			return
		}
		p := packet{walker: w, table: table, chain: chain, depth: depth, match: m, loaded: make(map[uint32]field), values: make(map[uint32][]byte)}
		p.run(r.Exprs)
	}
}

// full counts a rule that is looked at, and reports whether that is one too many.
func (w *walker) full() bool {
	if w.steps++; w.steps > maxSteps || len(w.found) >= maxTranslations {
		w.err = fmt.Errorf("more than %d rules, or %d ports, are translated here; the rest is not announced", maxSteps, maxTranslations)
		return true
	}
	return false
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
	iif // where it came in
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
		return p.incoming || op != expr.CmpOpEq
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
		return p.incoming // what this machine sends came in nowhere
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

// add notes a translation.
func (p *packet) add(addr netip.Addr, port uint16) {
	switch {
	case !addr.IsValid():
		p.say("%s %s: a DNAT whose address is not in the rule", p.table.Name, p.chain)
	case len(p.match.ports) == 0 && p.everything:
		p.found = append(p.found, Translation{Proto: p.match.proto, Addr: p.match.addr, To: netip.AddrPortFrom(addr, port)})
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

// number reads a port.
func number(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
