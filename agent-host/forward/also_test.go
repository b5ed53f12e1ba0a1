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

// place sends every listener to a port of 127.0.0.1, and to others besides.
func place(port uint16, also ...policy.Decision) policy.Decision {
	return policy.Decision{Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}, Rule: "a rule", Also: also}
}

func TestAListenerMayHaveSeveralPlacesAndNoneWaitsForAnother(t *testing.T) {
	guest, a, b := ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t)
	own := netip.MustParseAddr("127.3.2.1")
	rules := func(d policy.Decision) policy.Rules {
		return func(string, portlist.Listener) policy.Decision { return d }
	}
	table := newTable(t, forward.Config{Rules: rules(place(a, place(b)))})
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
	table.SetRules(rules(place(b)), nil, nil, nil)
	if f := one(t, vm); f.State != status.Active || !slices.Equal(f.Listening, []string{addr("127.0.0.1", b), addr(own.String(), guest)}) {
		t.Errorf("alone: %+v", f)
	}
	wantClosed(t, addr("127.0.0.1", a))
	vm.Announce(nil)
	wantClosed(t, addr("127.0.0.1", b))
}

// Whatever comes before it or goes, a place is closed only when no rule has it any more. Another VM
// waits for it until then.
func TestAPlaceThatStaysKeepsItsListenerWhileOthersComeAndGo(t *testing.T) {
	guest, a, b := ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t)
	opened := make(map[string]int)
	var decided policy.Decision
	rules := func(vm string, _ portlist.Listener) policy.Decision {
		if vm == "dev" {
			return decided
		}
		return place(a)
	}
	decided = place(a)
	table := newTable(t, forward.Config{Rules: rules, Listen: func(at netip.AddrPort) (*net.TCPListener, error) {
		opened[at.String()]++
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	}})
	dev, two := table.Add("dev"), table.Add("two")
	own := addr("127.3.2.1", guest)
	dev.SetLoopback(netip.MustParseAddr("127.3.2.1"))
	for _, vm := range []*forward.VM{dev, two} {
		vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
		vm.Announce(listeners(guest, "0.0.0.0"))
	}
	listening := func() (all []string) {
		for _, f := range dev.Status() {
			all = append(all, f.Listening...)
		}
		slices.Sort(all)
		return all
	}
	first, second := addr("127.0.0.1", a), addr("127.0.0.1", b)
	for _, now := range []struct {
		decided policy.Decision
		want    []string
	}{
		{place(b, place(a)), []string{first, second, own}},
		{place(a, place(b)), []string{first, second, own}},
		{place(b, place(a)), []string{first, second, own}},
		{place(a), []string{first, own}},
		{place(b, place(a)), []string{first, second, own}},
	} {
		decided = now.decided
		table.SetRules(rules, nil, nil, nil)
		slices.Sort(now.want)
		if got := listening(); !slices.Equal(got, now.want) {
			t.Errorf("at %v and %d more: %q, want %q", decided.Host, len(decided.Also), got, now.want)
		}
		if f := one(t, two); f.State != status.Claim {
			t.Errorf("the other VM: %+v", f)
		}
	}
	for _, address := range []string{first, own} {
		if opened[address] != 1 {
			t.Errorf("%s was opened %d times", address, opened[address])
		}
	}

	// The own address goes to the place that is left, and what no rule has to whom it was kept from.
	decided = place(b)
	table.SetRules(rules, nil, nil, nil)
	want := []string{second, own}
	slices.Sort(want)
	if got := listening(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if f := one(t, two); f.State != status.Active {
		t.Errorf("the other VM: %+v", f)
	}
}

// The own address of a VM is at the guest's port, and given back with it, whichever place has it.
func TestAReleasedPortIsFreeAtTheOwnAddressToo(t *testing.T) {
	port, other := ownnet.FreePort(t), ownnet.FreePort(t)
	decided := place(port)
	rules := func(string, portlist.Listener) policy.Decision { return decided }
	table := newTable(t, forward.Config{Rules: rules})
	vm := table.Add("dev")
	vm.SetLoopback(netip.MustParseAddr("127.3.2.1"))
	vm.Announce(listeners(port, "0.0.0.0"))
	decided = place(other, place(port))
	table.SetRules(rules, nil, nil, nil)
	table.Release("", "tcp", port)
	hold(t, addr("0.0.0.0", port))
}
