package byport_test

import (
	"net/netip"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward/byport"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func TestWhatIsOnAPortIsFoundAndNothingElse(t *testing.T) {
	var m byport.Map[int]
	keys := []policy.Key{
		{Proto: "tcp", Port: 80}, {Proto: "tcp", Port: 80, Decision: "elsewhere"}, {Proto: "udp", Port: 80}, {Proto: "tcp", Port: 81},
		{Proto: policy.ProtoUnix, Socket: "/run/a"}, {Proto: policy.ProtoUnix, Socket: "/run/b"},
	}
	for i, k := range keys {
		m.Set(k, -1)
		m.Set(k, i+1)
	}
	on := func(of policy.Ports) (sum int) {
		for k, v := range m.On(of) {
			if keys[v-1] != k {
				t.Errorf("%v has %d", k, v)
			}
			sum += v
		}
		return sum
	}
	if m.Len() != len(keys) || on(policy.Ports{All: true}) != 21 || on(policy.Port("tcp", 80)) != 1+2 || on(policy.Port("udp", 80)) != 3 || on(policy.Port("udp", 81)) != 0 {
		t.Errorf("%d keys: %+v", m.Len(), m)
	}
	two := policy.Port("tcp", 81)
	two.Add([]portlist.Listener{{Proto: "udp", Addr: netip.MustParseAddrPort("[::]:80")}})
	if got := on(two); got != 4+3 {
		t.Errorf("of two ports: %d", got)
	}
	m.Delete(keys[0])
	if got := m.Get(keys[0]); got != 0 || on(policy.Port("tcp", 80)) != 2 || m.Len() != len(keys)-1 {
		t.Errorf("after one was deleted: %d", got)
	}
	// All of them while they are ranged over.
	for k := range m.All() {
		m.Delete(k)
	}
	if m.Len() != 0 || on(policy.Ports{All: true}) != 0 {
		t.Errorf("after all were deleted: %+v", m)
	}
}
