package portlist_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func TestWhatAUserHasBeyondTheLimitIsLeftOutAndWhatWasThereStays(t *testing.T) {
	of := func(uid uint32, first, n int) (all []portlist.Listener) {
		for i := range n {
			all = append(all, portlist.Listener{Proto: "tcp", UID: uid, Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(first+i))})
		}
		return all
	}
	together := func(some ...[]portlist.Listener) []portlist.Listener {
		return slices.SortedFunc(slices.Values(slices.Concat(some...)), portlist.Compare)
	}
	const most = portlist.MaxOfUser
	for _, row := range []struct {
		what              string
		all, before, kept []portlist.Listener
		over              []uint32
	}{
		{"as many as there may be", of(1000, 2000, most), nil, of(1000, 2000, most), nil},
		{"of two users", together(of(1000, 2000, most), of(1001, 9000, most)), nil, together(of(1000, 2000, most), of(1001, 9000, most)), nil},
		{"of root", of(0, 2000, 4*most), nil, of(0, 2000, 4*most), nil},
		{"the first ones", of(1000, 2000, most+5), nil, of(1000, 2000, most), []uint32{1000}},
		{"those that were there", of(1000, 2000, most+5), of(1000, 2005, most), of(1000, 2005, most), []uint32{1000}},
		{"those that were there, and others", of(1000, 2000, most+5), of(1000, 2500, 3), of(1000, 2000, most), []uint32{1000}},
		{"what another had there", of(1000, 2000, most+5), of(1001, 2000+most, 5), of(1000, 2000, most), []uint32{1000}},
		{"beside others'", together(of(1000, 2000, most+5), of(0, 9000, 5)), nil, together(of(1000, 2000, most), of(0, 9000, 5)), []uint32{1000}},
		{"users of one block", together(of(200_000, 2000, most), of(200_001, 9000, 5)), nil, of(200_000, 2000, most), []uint32{portlist.UserOf(200_000)}},
	} {
		kept, over := portlist.Limit(row.all, row.before)
		if !slices.Equal(kept, row.kept) || !slices.Equal(over, row.over) {
			t.Errorf("%s: %d are kept, from %v to %v; over %v", row.what, len(kept), kept[0].Addr, kept[len(kept)-1].Addr, over)
		}
	}
}
