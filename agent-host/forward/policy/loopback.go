package policy

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
)

// VMs have their loopback addresses in 127.64.0.0/10: 127.64.0.0 to
// 127.127.255.255. The rest of 127/8 is left to resolvers, containers and people,
// who begin at 127.0.0.1 and 127.0.1.1.
var loopbackRange = netip.MustParsePrefix("127.64.0.0/10")

// Loopbacks gives every VM a loopback address of its own, where all its ports can
// be, whatever other VMs listen on. ids tell the VMs apart for good, as UUIDs do.
//
// An address depends on the id alone as long as no two ids meet at one, which
// among a hundred VMs happens to one host in a thousand. Then the id that comes
// first in lexical order has it, and the other has the next free one.
func Loopbacks(ids []string) map[string]netip.Addr {
	addrs := make(map[string]netip.Addr, len(ids))
	taken := make(map[netip.Addr]bool, len(ids))
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		h := fnv.New64a()
		h.Write([]byte(id))
		n := mix(h.Sum64())
		for taken[loopback(n)] {
			n++
		}
		addrs[id] = loopback(n)
		taken[addrs[id]] = true
	}
	return addrs
}

// MayBeLoopback reports whether an address may be one of [Loopbacks].
func MayBeLoopback(ip netip.Addr) bool { return loopbackRange.Contains(ip) }

// mix spreads the differences of similar ids over the low bits: the finaliser of
// MurmurHash3.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// loopback is the address of number n of the range, which is taken modulo its
// size. The last byte is never 0 or 255, which some programs refuse.
func loopback(n uint64) netip.Addr {
	first := binary.BigEndian.Uint32(loopbackRange.Addr().AsSlice())
	const perNet = 254
	nets := uint64(1) << (24 - loopbackRange.Bits())
	n %= nets * perNet
	addr := first + uint32(n/perNet)<<8 + uint32(n%perNet) + 1
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, addr)))
}
