package forward_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// at is the forward of what listens on an address of the guest.
func at(t *testing.T, vm *forward.VM, address string) status.Forward {
	t.Helper()
	all := vm.Status()
	i := slices.IndexFunc(all, func(f status.Forward) bool { return slices.Contains(f.Guest, address) })
	if i < 0 {
		t.Fatalf("nothing is said of %s: %+v", address, all)
	}
	return all[i]
}

func TestAnotherServiceOnThePortIsShownWithTheRuleThatReachesIt(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	port := ownnet.FreePort(t)
	first, second, local := addr("127.0.0.2", port), addr("192.168.50.101", port), addr("127.0.0.1", port)
	suggested := int(port) + 10000
	if suggested > 65535 {
		suggested -= 20000
	}
	rule := fmt.Sprintf(`; a rule reaches %s: guest = %d, guest_ip = "192.168.50.101", host = %d`, second, port, suggested)

	vm.Announce(listeners(port, "127.0.0.2", "192.168.50.101"))
	if f := at(t, vm, first); f.State != status.Active || !slices.Equal(f.Guest, []string{first}) {
		t.Errorf("%+v", f)
	}
	if f := at(t, vm, second); f.State != status.Claim || f.Reason != local+" means "+first+" in the guest"+rule {
		t.Errorf("%+v", f)
	}

	// What the guest itself calls localhost is localhost, whoever came first.
	vm.Announce(listeners(port, "127.0.0.1", "127.0.0.2", "192.168.50.101"))
	if f := at(t, vm, local); f.State != status.Active || f.Reason != "" {
		t.Errorf("%+v", f)
	}
	for _, a := range []string{first, second} {
		if f := at(t, vm, a); f.State != status.Claim || len(f.Listening) > 0 {
			t.Errorf("%+v", f)
		}
	}
	if f := at(t, vm, second); f.Reason != local+" means "+local+" in the guest"+rule {
		t.Errorf("%+v", f)
	}
	vm.Announce(listeners(port, "192.168.50.101"))
	if f := one(t, vm); f.State != status.Active || !slices.Equal(f.Guest, []string{second}) {
		t.Errorf("%+v", f)
	}
}

func TestEachServiceOnAPortIsSuggestedAPlaceOfItsOwn(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "127.0.0.1", "127.0.0.9", "192.168.50.101"))
	hosts := map[string]bool{}
	for _, a := range []string{"127.0.0.9", "192.168.50.101"} {
		_, host, found := strings.Cut(at(t, vm, addr(a, port)).Reason, ", host = ")
		if !found || hosts[host] {
			t.Errorf("%s: %q, after %v", a, host, hosts)
		}
		hosts[host] = true
	}
}

// Thousands of services on one port are not compared with one another: the guest says
// how many there are.
func TestAPortWithThousandsOfServicesIsSaidOfEach(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	port := ownnet.FreePort(t)
	var all []portlist.Listener
	for i := range 4000 {
		all = append(all, listeners(port, fmt.Sprintf("127.1.%d.%d", i/200, 1+i%200))...)
	}
	vm.Announce(all)
	claims := 0
	for _, f := range vm.Status() {
		if f.State == status.Claim && strings.Contains(f.Reason, "a rule reaches "+f.Guest[0]) {
			claims++
		}
	}
	if claims != len(all)-1 {
		t.Errorf("%d claims of %d services say which rule reaches them", claims, len(all))
	}
}

func TestOfTwoRulesForOneHostAddressTheOtherIsNamed(t *testing.T) {
	port, other := ownnet.FreePort(t), ownnet.FreePort(t)
	table := newTable(t, forward.Config{Rules: func(vm string, l portlist.Listener) policy.Decision {
		return policy.Decision{Rule: "rule for " + l.Addr.Addr().String(), Host: []netip.AddrPort{netip.MustParseAddrPort(addr("127.0.0.1", other))}}
	}})
	vm := table.Add("dev")
	vm.Announce(listeners(port, "127.0.0.2", "127.0.0.9"))
	want := addr("127.0.0.1", other) + " means " + addr("127.0.0.2", port) + " in the guest (rule for 127.0.0.2): give the rule of one of them another host"
	if f := at(t, vm, addr("127.0.0.9", port)); f.State != status.Claim || f.Reason != want {
		t.Errorf("%+v", f)
	}
}

func TestTheRuleThatIsSuggestedReachesTheOtherService(t *testing.T) {
	port, other := ownnet.FreePort(t), ownnet.FreePort(t)
	second := netip.MustParseAddr("192.168.50.101")
	table := newTable(t, forward.Config{Rules: func(vm string, l portlist.Listener) policy.Decision {
		if l.Addr.Addr() == second {
			return policy.Decision{Rule: "it", Host: []netip.AddrPort{netip.MustParseAddrPort(addr("127.0.0.1", other))}}
		}
		return policy.SamePort(vm, l)
	}})
	vm := withOwn(table, "dev", ownOne)
	vm.Announce(listeners(port, "127.0.0.1", second.String()))
	for _, f := range vm.Status() {
		if f.State != status.Active || f.Reason != "" {
			t.Errorf("%+v", f)
		}
	}
}
