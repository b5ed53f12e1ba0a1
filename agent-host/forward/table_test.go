package forward_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

func TestPortIsOnBothLoopbackAddresses(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
	roundTrip(t, dial(t, addr("::1", port)))

	f := one(t, vm)
	if f.State != status.Active || f.Path != "vsock" || f.Rule != "default" || f.ConnectionsTotal != 2 ||
		!slices.Equal(f.Host, []string{addr("127.0.0.1", port), addr("::1", port)}) ||
		!slices.Equal(f.Guest, []string{addr("0.0.0.0", port)}) {
		t.Errorf("%+v", f)
	}
}

func TestAllAddressesOfAPortAreOneForwardThatGoesWithTheLast(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	port := ownnet.FreePort(t)
	hosts := []string{"0.0.0.0", "127.0.0.1", "::", "::1"}
	for len(hosts) > 0 {
		vm.Announce(listeners(port, hosts...))
		if f := one(t, vm); len(f.Guest) != len(hosts) || f.State != status.Active {
			t.Errorf("%v: %+v", hosts, f)
		}
		hosts = hosts[1:]
	}
	vm.Announce(nil)
	if all := vm.Status(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	wantClosed(t, addr("127.0.0.1", port))
	wantClosed(t, addr("::1", port))
}

func TestReplayedSnapshotOpensNothingTwice(t *testing.T) {
	var opens atomic.Int32
	vm := newTable(t, forward.Config{Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
		opens.Add(1)
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
	}}).Add("dev")
	link := linkTo(echo(t, "127.0.0.2:0"))
	vm.SetLink(link)
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0", "::"))
	c := dial(t, addr("127.0.0.1", port))
	roundTrip(t, c)
	for range 10 {
		vm.SetLink(nil)
		vm.SetLink(link)
		vm.Announce(listeners(port, "0.0.0.0", "::"))
	}
	roundTrip(t, c)
	if n := opens.Load(); n != 2 {
		t.Errorf("%d listeners were opened for two addresses", n)
	}
}

func TestTakenPortIsAClaimUntilTheHolderLeaves(t *testing.T) {
	var clock clock
	vm := newTable(t, forward.Config{Now: clock.now}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	taken, err := net.Listen("tcp", addr("::1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	vm.Announce(listeners(port, "0.0.0.0"))
	if f := one(t, vm); f.State != status.Claim || f.Path != "" {
		t.Errorf("%+v", f)
	}
	// The test's own process has it.
	eventually(t, vm, "the holder is named", func(all []status.Forward) bool {
		return strings.Contains(all[0].Reason, addr("::1", port)+" is held by forward.test[")
	})
	// A localhost that is the guest in one family and something else in the
	// other would be worse than none.
	wantClosed(t, addr("127.0.0.1", port))

	taken.Close()
	clock.settle(t, vm, addr("::1", port))
	eventually(t, vm, "taken over", inState(status.Active))
	if f := one(t, vm); f.Reason != "" {
		t.Errorf("%+v", f)
	}
	roundTrip(t, dial(t, addr("::1", port)))
}

func TestOfManyPortsThatAreTakenEachHolderIsAskedForBeforeAnyIsAskedForAgain(t *testing.T) {
	const count = 60
	asked, again := make(chan netip.AddrPort, 10*count), false
	vm := newTable(t, forward.Config{Holder: func(_ string, addr netip.AddrPort) string {
		asked <- addr
		return "nginx[812]"
	}}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	var all []portlist.Listener
	for range count {
		taken, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		all = append(all, listeners(uint16(taken.Addr().(*net.TCPAddr).Port), "127.0.0.1")...)
	}
	slices.SortFunc(all, portlist.Compare)
	vm.Announce(all)
	for seen := make(map[netip.AddrPort]bool); len(seen) < count; {
		addr := <-asked
		again = again || seen[addr]
		seen[addr] = true
	}
	if again {
		t.Error("some were asked for twice before all were once")
	}
	eventually(t, vm, "named", func(all []status.Forward) bool {
		return !slices.ContainsFunc(all, func(f status.Forward) bool { return !strings.Contains(f.Reason, "is held by nginx[812]") })
	})
}

func TestSecondVMTakesOverAtOnce(t *testing.T) {
	for name, leave := range map[string]func(*forward.VM){
		"port closed in the guest": func(vm *forward.VM) { vm.Announce(nil) },
		"VM removed":               (*forward.VM).Close,
	} {
		t.Run(name, func(t *testing.T) {
			table := newTable(t, forward.Config{})
			first, second := table.Add("one"), table.Add("two")
			port := ownnet.FreePort(t)
			first.Announce(listeners(port, "0.0.0.0"))
			second.Announce(listeners(port, "127.0.0.1"))
			if f := one(t, second); f.State != status.Claim || f.Reason != addr("127.0.0.1", port)+" is held by VM one" {
				t.Errorf("%+v", f)
			}
			leave(first)
			if f := one(t, second); f.State != status.Active {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestOlderClaimComesBeforeANewcomer(t *testing.T) {
	var clock clock
	table := newTable(t, forward.Config{Now: clock.now})
	second, third := table.Add("two"), table.Add("three")
	port := ownnet.FreePort(t)
	taken, err := net.Listen("tcp", addr("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	second.Announce(listeners(port, "0.0.0.0"))
	taken.Close()
	third.Announce(listeners(port, "0.0.0.0"))
	clock.settle(t, second, addr("127.0.0.1", port))
	eventually(t, second, "taken over", inState(status.Active))
	if f := one(t, third); f.State != status.Claim || !strings.HasSuffix(f.Reason, "held by VM two") {
		t.Errorf("%+v", f)
	}
}

func TestClaimGoesWithItsListener(t *testing.T) {
	table := newTable(t, forward.Config{})
	first, second := table.Add("one"), table.Add("two")
	port := ownnet.FreePort(t)
	first.Announce(listeners(port, "0.0.0.0"))
	second.Announce(listeners(port, "0.0.0.0"))
	second.Announce(nil)
	first.Announce(nil)
	wantClosed(t, addr("127.0.0.1", port))
}

func TestDeniedPortNamesTheRemedyAndUsesIt(t *testing.T) {
	var allowed atomic.Bool
	vm := newTable(t, forward.Config{Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
		if !allowed.Load() {
			return nil, &net.OpError{Op: "listen", Err: unixErr("bind", eacces)}
		}
		return net.ListenTCP("tcp", &net.TCPAddr{IP: a.Addr().AsSlice()})
	}}).Add("dev")
	vm.Announce(listeners(80, "0.0.0.0"))
	f := one(t, vm)
	if f.State != status.Denied || !strings.Contains(f.Reason, "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80") {
		t.Errorf("%+v", f)
	}
	allowed.Store(true)
	eventually(t, vm, "bound once allowed", inState(status.Active))
}

func TestHostWithoutIPv6HasIPv4Alone(t *testing.T) {
	vm := newTable(t, forward.Config{Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
		if a.Addr().Is6() {
			return nil, &net.OpError{Op: "listen", Err: unixErr("bind", eaddrnotavail)}
		}
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
	}}).Add("dev")
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "::"))
	if f := one(t, vm); f.State != status.Active || !slices.Equal(f.Host, []string{addr("127.0.0.1", port)}) ||
		f.Reason != addr("::1", port)+": this host has no such address now" {
		t.Errorf("%+v", f)
	}
}

func TestAForwardWithoutAnyOfItsAddressesIsAClaim(t *testing.T) {
	var back atomic.Bool
	port := ownnet.FreePort(t)
	vm := newTable(t, forward.Config{
		Rules: func(string, portlist.Listener) policy.Decision {
			return policy.Decision{Host: []netip.AddrPort{
				netip.AddrPortFrom(netip.IPv6Loopback(), port), netip.MustParseAddrPort("[2001:db8::7]:7777"),
			}}
		},
		Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
			if !back.Load() || !a.Addr().IsLoopback() {
				return nil, &net.OpError{Op: "listen", Err: unixErr("bind", eaddrnotavail)}
			}
			return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
		},
	}).Add("dev")
	vm.Announce(listeners(port, "0.0.0.0"))
	if f := one(t, vm); f.State != status.Claim || !strings.HasSuffix(f.Reason, ": this host has no such address now") {
		t.Errorf("%+v", f)
	}
	back.Store(true)
	eventually(t, vm, "what there is of them is open", inState(status.Active))
}

// When IPv6 comes back, something else may have the port there by then.
func TestAnAddressThatComesBackIsBoundWhenItIsFree(t *testing.T) {
	var gone atomic.Bool
	gone.Store(true)
	var clock clock
	vm := newTable(t, forward.Config{Now: clock.now, Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
		if a.Addr().Is6() && gone.Load() {
			return nil, &net.OpError{Op: "listen", Err: unixErr("bind", eaddrnotavail)}
		}
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
	}}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	taken, err := net.Listen("tcp", addr("::1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	vm.Announce(listeners(port, "::"))
	c := dial(t, addr("127.0.0.1", port))
	roundTrip(t, c)
	gone.Store(false)
	eventually(t, vm, "told", func(all []status.Forward) bool { return all[0].Reason == addr("::1", port)+" is in use" })
	taken.Close()
	clock.settle(t, vm, addr("::1", port))
	eventually(t, vm, "whole", func(all []status.Forward) bool {
		return all[0].Reason == "" && slices.Equal(all[0].Listening, []string{addr("127.0.0.1", port), addr("::1", port)})
	})
	roundTrip(t, dial(t, addr("::1", port)))
	_ = c.SetDeadline(time.Now().Add(patience))
	roundTrip(t, c)
	vm.Announce(nil)
	wantClosed(t, addr("::1", port))
}

func TestGuestCannotTakeTheWholeHost(t *testing.T) {
	var open atomic.Int32
	vm := newTable(t, forward.Config{Listen: func(netip.AddrPort) (*net.TCPListener, error) {
		open.Add(1)
		return net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	}}).Add("dev")
	var all []portlist.Listener
	for port := range uint16(1100) {
		all = append(all, listeners(port+1, "0.0.0.0")...)
	}
	vm.Announce(all)
	count := map[string]int{}
	for _, f := range vm.Status() {
		count[f.State]++
	}
	if count[status.Active] != 1024 || count[status.Denied] != 76 || open.Load() != 2048 {
		t.Errorf("%v, %d listeners", count, open.Load())
	}
	vm.Announce(all[1000:])
	for _, f := range vm.Status() {
		if f.State != status.Active {
			t.Fatalf("there is room again, but %+v", f)
		}
	}
}

func TestRulesDecide(t *testing.T) {
	port, host := ownnet.FreePort(t), ownnet.FreePort(t)
	table := newTable(t, forward.Config{Rules: func(vm string, l portlist.Listener) policy.Decision {
		if vm == "dev" && l.Process == "web[1]" {
			return policy.Decision{Rule: "web", Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), host)}}
		}
		return policy.Decision{Rule: "rest", Verdict: status.Ignored, Reason: "not wanted"}
	}})
	vm := table.Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	ls := listeners(port, "0.0.0.0", "127.0.0.1")
	ls[0].Process = "web[1]"
	vm.Announce(ls)
	all := vm.Status()
	if len(all) != 2 || all[0].Rule != "web" || all[1].Rule != "rest" || all[1].Reason != "not wanted" || all[0].Process != "web[1]" {
		t.Fatalf("%+v", all)
	}
	roundTrip(t, dial(t, addr("127.0.0.5", host)))
	wantClosed(t, addr("127.0.0.1", port))
}

func TestWithdrawalIsAtOnceAndLeavesConnectionsAlone(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	c := dial(t, addr("127.0.0.1", port))
	roundTrip(t, c)
	began := time.Now()
	vm.Announce(nil)
	wantClosed(t, addr("127.0.0.1", port))
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
	roundTrip(t, c)
}

func TestClosedTableResetsConnectionsAndFreesPorts(t *testing.T) {
	table := forward.New(forward.Config{})
	vm := table.Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	c := dial(t, addr("127.0.0.1", port))
	roundTrip(t, c)
	table.Close()
	wantReset(t, c)
	wantClosed(t, addr("127.0.0.1", port))
	vm.Announce(listeners(port, "0.0.0.0"))
	wantClosed(t, addr("127.0.0.1", port))
}
