package forward_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// One address of a port is part of all addresses of the host, so a rule about the one comes before an automatic forward at
// the others, and the other way round.
func TestARulesAddressComesBeforeAutomaticOnesThatHaveItInThem(t *testing.T) {
	for _, c := range []struct{ rule, automatic string }{
		{"0.0.0.0", "127.0.0.1"}, {"127.0.0.1", "0.0.0.0"}, {"::", "::1"}, {"::1", "::"}, {"127.0.0.1", "127.0.0.1"},
	} {
		t.Run(c.rule+" before "+c.automatic, func(t *testing.T) {
			named, auto := ownnet.FreePort(t), ownnet.FreePort(t)
			on := func(ip string) []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(addr(ip, auto))} }
			table := newTable(t, forward.Config{Rules: func(_ string, l portlist.Listener) policy.Decision {
				if l.Addr.Port() == named {
					return policy.Decision{Rule: "a rule", Host: on(c.rule)}
				}
				return policy.Decision{Rule: policy.DefaultRule, Automatic: true, Host: on(c.automatic)}
			}})
			vm := table.Add("dev")
			both := slices.Concat(listeners(auto, "0.0.0.0"), listeners(named, "0.0.0.0"))
			state := func(port uint16) string {
				t.Helper()
				i := slices.IndexFunc(vm.Status(), func(f status.Forward) bool { return f.Port == port })
				if i < 0 {
					t.Fatalf("no forward of %d: %+v", port, vm.Status())
				}
				return vm.Status()[i].State
			}
			vm.Announce(both[:1])
			if got := state(auto); got != status.Active {
				t.Errorf("alone: %s", got)
			}
			vm.Announce(both)
			if r, a := state(named), state(auto); r != status.Active || a != status.Claim {
				t.Errorf("the rule's is %s, the automatic one %s", r, a)
			}
			vm.Announce(both[:1])
			if got := state(auto); got != status.Active {
				t.Errorf("alone again: %s", got)
			}
		})
	}
}

// A rule that reaches one service of several on a port is not overruled by what is localhost in the guest.
func TestARuleForAnotherServiceOnThePortHasLocalhost(t *testing.T) {
	port := ownnet.FreePort(t)
	table := newTable(t, forward.Config{Rules: func(vm string, l portlist.Listener) policy.Decision {
		d := policy.SamePort(vm, l)
		d.Automatic = l.Addr.Addr().IsLoopback()
		return d
	}})
	vm := table.Add("dev")
	second := addr("192.168.50.101", port)
	for range 2 {
		vm.Announce(listeners(port, "127.0.0.1", "192.168.50.101"))
		if f := at(t, vm, second); f.State != status.Active {
			t.Errorf("%+v", f)
		}
		if f := at(t, vm, addr("127.0.0.1", port)); f.State != status.Claim || f.Reason == "" {
			t.Errorf("%+v", f)
		}
		vm.Announce(listeners(port, "127.0.0.1"))
		if f := one(t, vm); f.State != status.Active {
			t.Errorf("%+v", f)
		}
	}
}
