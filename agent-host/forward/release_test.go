package forward_test

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

func isReleased(f status.Forward) bool {
	return f.State == status.Ignored && f.Reason == status.Released && len(f.Listening) == 0 && len(f.Host) > 0
}

func TestAReleasedPortIsFreeUntilTheListenerInTheGuestHasGone(t *testing.T) {
	guest, port := ownnet.FreePort(t), ownnet.FreePort(t)
	history := events.New()
	rules := func(vm string, l portlist.Listener) policy.Decision {
		return policy.Decision{Rule: "rum.toml:1", Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}}
	}
	table := newTable(t, forward.Config{Rules: rules, Events: history})
	vm := table.Add("dev")
	vm.SetLoopback(netip.MustParseAddr("127.77.0.1"))
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	vm.Announce(listeners(guest, "0.0.0.0"))
	open := dial(t, addr("127.0.0.1", port))
	roundTrip(t, open)

	all := table.Release("", "tcp", port)
	if len(all) != 1 || all[0].VM != "dev" || all[0].Port != guest || !slices.Contains(all[0].Host, addr("127.0.0.1", port)) {
		t.Fatalf("%+v", all)
	}
	service := hold(t, ":"+strconv.Itoa(int(port))) // wherever the forward was
	roundTrip(t, open)
	if e, ok := history.Last("dev", "tcp", guest, events.Released); !ok || !slices.Contains(e.Host, addr("127.0.0.1", port)) {
		t.Errorf("%+v", e)
	}
	if e, ok := history.Last("dev", "tcp", guest, events.Stopped); ok {
		t.Errorf("it is told as well to have stopped: %+v", e)
	}
	if again := table.Release("", "tcp", port); len(again) != 0 {
		t.Errorf("given back twice: %+v", again)
	}

	// It lasts while something listens there, whatever else is announced or decided.
	for what, change := range map[string]func(){
		"another address": func() { vm.Announce(listeners(guest, "0.0.0.0", "127.0.0.1")) },
		"a new link":      func() { vm.SetLink(linkTo(echo(t, "127.0.0.2:0"))) },
		"rules again":     func() { table.SetRules(rules, nil, nil, nil) },
	} {
		if change(); !isReleased(one(t, vm)) {
			t.Errorf("after %s: %+v", what, one(t, vm))
		}
	}
	vm.Announce(listeners(guest, "0.0.0.0", "127.0.0.1"))
	vm.Announce(listeners(guest, "127.0.0.1"))
	service.Close()
	if f := one(t, vm); !isReleased(f) {
		t.Errorf("when the host's service and one of two listeners had gone: %+v", f)
	}

	vm.Announce(nil)
	vm.Announce(listeners(guest, "0.0.0.0"))
	if f := one(t, vm); f.State != status.Active {
		t.Errorf("when it came anew: %+v", f)
	}

	// A VM that stays away has no listeners either.
	table.Release("", "tcp", port)
	vm.SetLink(nil)
	vm.LinkGone()
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	vm.Announce(listeners(guest, "0.0.0.0"))
	if f := one(t, vm); f.State != status.Active {
		t.Errorf("when the VM had been away: %+v", f)
	}
}

func TestAPortIsReleasedByAllVMsOrByOne(t *testing.T) {
	port := ownnet.FreePort(t)
	table := newTable(t, forward.Config{})
	first, second := table.Add("first"), table.Add("second")
	for i, vm := range []*forward.VM{first, second} {
		vm.SetLoopback(netip.AddrFrom4([4]byte{127, 77, 0, byte(1 + i)}))
		vm.Announce(listeners(port, "0.0.0.0"))
	}
	if all := table.Release("first", "tcp", port); len(all) != 1 || all[0].VM != "first" {
		t.Fatalf("%+v", all)
	}
	if a, b := one(t, first), one(t, second); !isReleased(a) || b.State != status.Active {
		t.Errorf("%+v\n%+v", a, b)
	}
	first.Announce(nil)
	first.Announce(listeners(port, "0.0.0.0"))
	if all := table.Release("", "tcp", port); len(all) != 2 {
		t.Fatalf("%+v", all)
	}
	if a, b := one(t, first), one(t, second); !isReleased(a) || !isReleased(b) {
		t.Errorf("%+v\n%+v", a, b)
	}
	l, err := net.Listen("tcp", ":"+strconv.Itoa(int(port)))
	if err != nil {
		t.Fatalf("it is not free: %v", err)
	}
	l.Close()
}

// A port on which nothing listens at the moment, as a static rule's and one that is held, is given
// back until something does: that is the service's next start.
func TestAPortThatNothingListensOnIsReleasedUntilSomethingDoes(t *testing.T) {
	for _, name := range []string{"static", "held"} {
		t.Run(name, func(t *testing.T) {
			port := ownnet.FreePort(t)
			cfg := forward.Config{Rules: func(vm string, l portlist.Listener) policy.Decision {
				d := policy.SamePort(vm, l)
				d.Hold = time.Hour
				return d
			}}
			if name == "static" {
				cfg = forward.Config{Rules: asStatic(policy.SamePort), Static: func(string) []portlist.Listener { return listeners(port, "0.0.0.0") }}
			}
			table := newTable(t, cfg)
			vm := table.Add("dev")
			vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
			vm.Announce(listeners(port, "0.0.0.0"))
			vm.Announce(nil)
			if f := one(t, vm); f.State != status.Active {
				t.Fatalf("%+v", f)
			}
			if all := table.Release("", "tcp", port); len(all) != 1 {
				t.Fatalf("%+v", all)
			}
			l, err := net.Listen("tcp", addr("127.0.0.1", port))
			if err != nil {
				t.Fatal(err)
			}
			vm.Announce(nil)
			l.Close()
			vm.Announce(listeners(port, "0.0.0.0"))
			if f := one(t, vm); f.State != status.Active {
				t.Errorf("when the service has started: %+v", f)
			}

			// Given back while it listens, it stays so while it does not.
			table.Release("", "tcp", port)
			vm.Announce(nil)
			if all := vm.Status(); len(all) > 0 && !isReleased(all[0]) {
				t.Errorf("%+v", all)
			}
		})
	}
}
