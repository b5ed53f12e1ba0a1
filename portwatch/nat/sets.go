package nat

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

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
		return e.Invert || p.incoming || p.loaded[slot(e.SourceRegister)] != iif
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
