package portlist_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func TestADifferenceLeadsFromOnePictureToTheOther(t *testing.T) {
	type key struct {
		proto string
		addr  netip.AddrPort
	}
	random := rand.New(rand.NewPCG(1, 2))
	picture := func() []portlist.Listener {
		var ls []portlist.Listener
		for _, proto := range []string{"tcp", "udp"} {
			for port := range uint16(5) {
				for _, addr := range []string{"0.0.0.0", "127.0.0.1", "::"} {
					if random.IntN(2) == 0 {
						ls = append(ls, portlist.Listener{
							Proto: proto, Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), port),
							Process: []string{"", "a[1]", "b[2]"}[random.IntN(3)],
						})
					}
				}
			}
		}
		return ls
	}
	for range 500 {
		before, after := picture(), picture()
		if random.IntN(10) == 0 {
			before = nil
		}
		added, removed := portlist.Diff(before, after)
		got := map[key]portlist.Listener{}
		for _, l := range before {
			got[key{l.Proto, l.Addr}] = l
		}
		for _, l := range removed {
			k := key{l.Proto, l.Addr}
			if got[k] != l {
				t.Fatalf("%v was removed but not there", l)
			}
			delete(got, k)
		}
		for _, l := range added {
			if slices.Contains(before, l) {
				t.Fatalf("%v was added but there already", l)
			}
			got[key{l.Proto, l.Addr}] = l
		}
		if len(got) != len(after) {
			t.Fatalf("got %v, want %v", got, after)
		}
		for _, l := range after {
			if got[key{l.Proto, l.Addr}] != l {
				t.Fatalf("%v is missing from %v", l, got)
			}
		}
	}
}

func TestAnotherOwnerOfAnAddressIsNoRemoval(t *testing.T) {
	before := portlist.Listener{Proto: "tcp", Addr: netip.MustParseAddrPort("127.0.0.1:80")}
	after := before
	after.Process = "nginx[1]"
	added, removed := portlist.Diff([]portlist.Listener{before}, []portlist.Listener{after})
	if len(removed) != 0 || !slices.Equal(added, []portlist.Listener{after}) {
		t.Errorf("added %v, removed %v", added, removed)
	}
}
