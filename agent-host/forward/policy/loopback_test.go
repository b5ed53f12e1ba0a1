package policy_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
)

func TestLoopbackAddressDependsOnTheIDAlone(t *testing.T) {
	const id = "5d1f6b0e-2a58-4c3b-9a39-6b4f0e9d7c11"
	alone := policy.Loopbacks([]string{id})[id]
	if want := netip.MustParseAddr("127.117.55.26"); alone != want {
		t.Errorf("got %v, want %v: addresses that people wrote down would change", alone, want)
	}
	others := policy.Loopbacks([]string{"z", id, "a", id, "b"})
	if others[id] != alone || len(others) != 4 {
		t.Errorf("among others %v, alone %v", others[id], alone)
	}
}

func TestLoopbackAddressesNeverCollide(t *testing.T) {
	var ids []string
	for i := range 20_000 { // among so many some dozens meet
		ids = append(ids, fmt.Sprintf("00000000-0000-4000-8000-%012x", i))
	}
	addrs := policy.Loopbacks(ids)
	seen := map[netip.Addr]string{}
	within := netip.MustParsePrefix("127.64.0.0/10")
	for id, a := range addrs {
		if other, ok := seen[a]; ok {
			t.Fatalf("%s and %s both have %v", id, other, a)
		}
		seen[a] = id
		if last := a.As4()[3]; !within.Contains(a) || last == 0 || last == 255 {
			t.Fatalf("%s has %v", id, a)
		}
	}
	slices.Reverse(ids)
	if !maps.Equal(policy.Loopbacks(ids), addrs) {
		t.Error("the order of the ids matters")
	}
}
