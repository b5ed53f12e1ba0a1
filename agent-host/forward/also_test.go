package forward_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

func TestAListenerMayHaveSeveralPlacesAndNoneWaitsForAnother(t *testing.T) {
	guest, a, b := ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t)
	own := netip.MustParseAddr("127.3.2.1")
	at := func(port uint16, also ...policy.Decision) policy.Decision {
		return policy.Decision{Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}, Rule: "a rule", Also: also}
	}
	rules := func(d policy.Decision) policy.Rules {
		return func(string, portlist.Listener) policy.Decision { return d }
	}
	table := newTable(t, forward.Config{Rules: rules(at(a, at(b)))})
	vm := table.Add("dev")
	vm.SetLoopback(own)
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	holder, err := net.Listen("tcp", addr("127.0.0.1", a))
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	vm.Announce(listeners(guest, "0.0.0.0", "127.0.0.1"))

	// The first has the VM's own address, and waits for its own alone.
	both := func() (first, second status.Forward) {
		t.Helper()
		all := vm.Status()
		if len(all) != 2 {
			t.Fatalf("%+v", all)
		}
		if slices.Contains(all[0].Host, addr("127.0.0.1", b)) {
			return all[1], all[0]
		}
		return all[0], all[1]
	}
	first, second := both()
	if first.State != status.Claim || !slices.Equal(first.Listening, []string{addr(own.String(), guest)}) {
		t.Errorf("the first: %+v", first)
	}
	if second.State != status.Active || !slices.Equal(second.Listening, []string{addr("127.0.0.1", b)}) {
		t.Errorf("the second: %+v", second)
	}
	roundTrip(t, dial(t, addr("127.0.0.1", b)))
	holder.Close()
	eventually(t, vm, "both are open", func(all []status.Forward) bool {
		return all[0].State == status.Active && all[1].State == status.Active
	})
	roundTrip(t, dial(t, addr("127.0.0.1", a)))

	// One that is alone has the VM's own address.
	table.SetRules(rules(at(b)), nil, nil)
	if f := one(t, vm); f.State != status.Active || !slices.Equal(f.Listening, []string{addr("127.0.0.1", b), addr(own.String(), guest)}) {
		t.Errorf("alone: %+v", f)
	}
	wantClosed(t, addr("127.0.0.1", a))
	vm.Announce(nil)
	wantClosed(t, addr("127.0.0.1", b))
}
