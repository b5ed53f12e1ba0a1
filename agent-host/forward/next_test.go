package forward_test

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// orNext sends each port to one of the host, or the next that is free, and leaves others alone.
func orNext(to map[uint16]uint16) policy.Rules {
	return func(vm string, l portlist.Listener) policy.Decision {
		host, ok := to[l.Addr.Port()]
		if !ok {
			return policy.SamePort(vm, l)
		}
		return policy.Decision{Rule: "rum.toml:1", Label: "shop", NextFree: true, Host: []netip.AddrPort{
			netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), host), netip.AddrPortFrom(netip.IPv6Loopback(), host),
		}}
	}
}

func hold(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestARuleTakesTheNextFreePortAndSaysWhichAndWhy(t *testing.T) {
	guest, host := ownnet.FreePort(t), ownnet.FreePort(t)
	history := events.New()
	table := newTable(t, forward.Config{Rules: orNext(map[uint16]uint16{guest: host}), Events: history})
	holder := hold(t, addr("127.0.0.1", host))
	vm := table.Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	listen := listeners(guest, "0.0.0.0")
	listen[0].Process = "web[1]" // which nothing waits for then
	vm.Announce(listen)

	f := one(t, vm)
	next := netip.MustParseAddrPort(f.Host[0]).Port()
	want, rule := []string{addr("127.0.0.1", next), addr("::1", next)}, []string{addr("127.0.0.1", host), addr("::1", host)}
	if f.State != status.Active || next <= host || !slices.Equal(f.Host, want) || !slices.Equal(f.Listening, want) || !slices.Equal(f.InsteadOf, rule) {
		t.Fatalf("%+v", f)
	}
	if !f.OnHost(host) || !f.OnHost(next) {
		t.Error("it is not found by the port of the rule, or not by its own")
	}
	roundTrip(t, dial(t, addr("127.0.0.1", next)))
	eventually(t, vm, "the holder is named", func(all []status.Forward) bool {
		return strings.HasPrefix(all[0].Reason, addr("127.0.0.1", host)+" was held by forward.test[") && strings.Contains(all[0].Reason, "the rule took the next free port, ")
	})
	e, ok := history.Last("dev", "tcp", guest, events.Forwarding)
	if !ok || !slices.Equal(e.Host, want) || !strings.Contains(e.Words, "the next free port") || e.Label != "shop" {
		t.Errorf("%+v", e)
	}
	if e, ok := history.Last("dev", "tcp", guest, events.Claim); ok {
		t.Errorf("a claim was told: %+v", e)
	}

	// It stays where people have found it, until it begins anew.
	holder.Close()
	vm.Announce(listeners(guest, "0.0.0.0", "127.0.0.1"))
	if f := one(t, vm); !slices.Equal(f.Listening, want) {
		t.Errorf("%+v", f)
	}
	vm.Announce(nil)
	vm.Announce(listeners(guest, "0.0.0.0"))
	if f := one(t, vm); f.State != status.Active {
		t.Errorf("%+v", f)
	}
}

func TestWhereNoNextPortIsFreeThereIsAClaim(t *testing.T) {
	guest, host := ownnet.FreePort(t), ownnet.FreePort(t)
	table := newTable(t, forward.Config{
		Rules:  orNext(map[uint16]uint16{guest: host}),
		Listen: func(netip.AddrPort) (*net.TCPListener, error) { return nil, unix.EADDRINUSE },
	})
	vm := table.Add("dev")
	vm.Announce(listeners(guest, "0.0.0.0"))
	said := fmt.Sprintf("no free port was found after %d; %s ", host, addr("127.0.0.1", host))
	if f := one(t, vm); f.State != status.Claim || f.Host[0] != addr("127.0.0.1", host) || f.InsteadOf != nil || !strings.HasPrefix(f.Reason, said) {
		t.Errorf("%+v, want a reason that begins with %q", f, said)
	}
	vm.Announce(nil)
	if all := vm.Status(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func TestTheLastPortHasNoNextOneAndSaysSoUntilItIsFree(t *testing.T) {
	guest := ownnet.FreePort(t)
	table := newTable(t, forward.Config{Rules: orNext(map[uint16]uint16{guest: math.MaxUint16})})
	holder := hold(t, addr("127.0.0.1", math.MaxUint16))
	vm := table.Add("dev")
	vm.Announce(listeners(guest, "0.0.0.0"))
	eventually(t, vm, "a claim, and why", func(all []status.Forward) bool {
		return all[0].State == status.Claim && strings.HasPrefix(all[0].Reason, "no free port was found after 65535; 127.0.0.1:65535 is held by ")
	})
	holder.Close()
	eventually(t, vm, "open at its own port, without a reason", func(all []status.Forward) bool {
		return all[0].State == status.Active && all[0].Reason == ""
	})
}

// What one VM has is in use for another, and a rule that took a port comes before what is
// there by itself.
func TestTheNextPortIsTheRulesAsItsOwnWouldBe(t *testing.T) {
	guest, host := ownnet.FreePort(t), ownnet.FreePort(t)
	table := newTable(t, forward.Config{Rules: orNext(map[uint16]uint16{guest: host})})
	first, second := table.Add("first"), table.Add("second")
	first.Announce(listeners(guest, "0.0.0.0"))
	second.Announce(listeners(guest, "0.0.0.0"))
	f := one(t, second)
	if f.State != status.Active || !strings.HasPrefix(f.Reason, addr("127.0.0.1", host)+" was held by VM first, and the rule took the next free port") {
		t.Fatalf("%+v", f)
	}
	next := netip.MustParseAddrPort(f.Host[0]).Port()
	second.Announce(append(listeners(guest, "0.0.0.0"), listeners(next, "0.0.0.0")...))
	byItself := func() status.Forward {
		all := second.Status()
		i := slices.IndexFunc(all, func(f status.Forward) bool { return f.Port == next })
		if i < 0 {
			t.Fatalf("%+v", all)
		}
		return all[i]
	}
	if f := byItself(); f.State != status.Claim || !strings.Contains(f.Reason, "is held by VM second, for its port") {
		t.Errorf("%+v", f)
	}
	second.Announce(listeners(next, "0.0.0.0"))
	if f := byItself(); f.State != status.Active {
		t.Errorf("after the rule's forward has gone: %+v", f)
	}
}

// naming has ports of the host named, in each VM those from one to another.
func naming(named map[string][2]uint16) policy.Names {
	return func(vm, _ string, at netip.AddrPort) uint16 {
		if ports := named[vm]; ports[0] <= at.Port() && at.Port() <= ports[1] {
			return ports[1]
		}
		return 0
	}
}

// nextOf is the port that a VM's forward of a guest port took in the place of its own.
func nextOf(t *testing.T, vm *forward.VM, guest uint16) uint16 {
	t.Helper()
	for _, f := range vm.Status() {
		if f.Port == guest && f.State == status.Active && f.InsteadOf != nil {
			return netip.MustParseAddrPort(f.Listening[0]).Port()
		}
	}
	t.Fatalf("port %d has no next port: %+v", guest, vm.Status())
	return 0
}

func TestTheNextPortIsNoneThatARuleOfAnyVMNames(t *testing.T) {
	guest, host := ownnet.FreePort(t), ownnet.FreePort(t)
	rules := orNext(map[uint16]uint16{guest: host})
	history := events.New()
	named := map[string][2]uint16{"dev": {host, host + 200}, "web": {host + 201, host + 202}, "late": {host + 204, host + 204}}
	table := newTable(t, forward.Config{Rules: rules, Names: naming(named), Events: history})
	hold(t, addr("127.0.0.1", host))
	vm := table.Add("dev")
	table.Add("web")
	listen := listeners(guest, "0.0.0.0")
	listen[0].Process = "web[1]" // which nothing waits for then
	vm.Announce(listen)
	if got := nextOf(t, vm, guest); got != host+203 {
		t.Fatalf("%d, want %d", got, host+203)
	}

	// What a rule comes to name is left to it: one of the same VM, and one of a VM that comes.
	named = map[string][2]uint16{"dev": {host, host + 203}, "late": {host + 204, host + 204}}
	before := history.Now()
	table.SetRules(rules, nil, nil, naming(named))
	if got := nextOf(t, vm, guest); got != host+204 {
		t.Errorf("%d, want %d", got, host+204)
	}
	if e, ok := history.Last("dev", "tcp", guest, events.Forwarding); !ok || e.Cursor <= before || !slices.Contains(e.Host, addr("127.0.0.1", host+204)) {
		t.Errorf("%+v", e)
	}
	table.Add("late")
	if got := nextOf(t, vm, guest); got != host+205 {
		t.Errorf("%d, want %d", got, host+205)
	}
	table.SetRules(rules, nil, nil, naming(named))
	if got := nextOf(t, vm, guest); got != host+205 {
		t.Errorf("it moved to %d for nothing", got)
	}
}

// What a rule took in the place of its own is what it gives back: its own was never the forward's.
func TestWhatIsGivenBackIsTheNextPortAndNotTheRulesOwn(t *testing.T) {
	guest, port := ownnet.FreePort(t), ownnet.FreePort(t)
	table := newTable(t, forward.Config{Rules: orNext(map[uint16]uint16{guest: port})})
	hold(t, addr("127.0.0.1", port))
	vm := table.Add("dev")
	vm.Announce(listeners(guest, "0.0.0.0"))
	next := nextOf(t, vm, guest)
	want := []string{addr("127.0.0.1", next), addr("::1", next)}

	if all := table.Release("", "tcp", next); len(all) != 1 || !slices.Equal(all[0].Host, want) {
		t.Fatalf("%+v", all)
	}
	if f := one(t, vm); !isReleased(f) || !slices.Equal(f.Host, want) || f.OnHost(port) {
		t.Errorf("%+v, want it at %q alone", f, want)
	}
	vm.Announce(listeners(guest, "0.0.0.0", "127.0.0.1"))
	if f := one(t, vm); !isReleased(f) || !slices.Equal(f.Host, want) {
		t.Errorf("after another announcement: %+v, want %q", f, want)
	}
}
