package forward_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// moved sends guest ports to other ports of 127.0.0.1, and the rest nowhere.
func moved(rule string, to map[uint16]uint16) policy.Rules {
	return func(_ string, l portlist.Listener) policy.Decision {
		if port := to[l.Addr.Port()]; port != 0 {
			return policy.Decision{Rule: rule, Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}}
		}
		return policy.Decision{Rule: rule, Verdict: status.Ignored, Reason: "not named"}
	}
}

func TestNewRulesLeaveForwardsAloneThatStayTheSame(t *testing.T) {
	const connections = 1000
	var opens atomic.Int32
	stays, moves, from, to := ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t)
	table := newTable(t, forward.Config{
		Rules: moved("a:1", map[uint16]uint16{1: stays, 2: from}),
		Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
			opens.Add(1)
			return net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(a))
		},
	})
	vm := table.Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	vm.Announce(append(listeners(1, "0.0.0.0"), append(listeners(2, "0.0.0.0"), listeners(3, "0.0.0.0")...)...))

	kept := make([]*net.TCPConn, connections)
	for i := range kept {
		kept[i] = dial(t, addr("127.0.0.1", stays))
		roundTrip(t, kept[i])
	}
	leaving := dial(t, addr("127.0.0.1", from))
	roundTrip(t, leaving)

	table.SetRules(moved("b:7", map[uint16]uint16{1: stays, 2: to, 3: moves}), nil, nil, nil)

	for _, c := range kept {
		_ = c.SetDeadline(time.Now().Add(patience))
		roundTrip(t, c)
	}
	roundTrip(t, leaving) // its listener went, it did not
	wantClosed(t, addr("127.0.0.1", from))
	roundTrip(t, dial(t, addr("127.0.0.1", to)))
	roundTrip(t, dial(t, addr("127.0.0.1", moves)))
	if n := opens.Load(); n != 4 {
		t.Errorf("%d listeners were opened for four places", n)
	}
	all := vm.Status()
	if i := slices.IndexFunc(all, func(f status.Forward) bool { return f.Port == 1 }); i < 0 || all[i].Rule != "b:7" || all[i].ConnectionsActive != connections {
		t.Errorf("%+v", all)
	}
}

func TestNewRulesMoveAPortFromOneVMToAnother(t *testing.T) {
	port := ownnet.FreePort(t)
	only := func(name string) policy.Rules {
		return func(vm string, l portlist.Listener) policy.Decision {
			if vm != name {
				return policy.Decision{Verdict: status.Ignored}
			}
			return policy.SamePort(vm, l)
		}
	}
	table := newTable(t, forward.Config{Rules: only("first")})
	first, second := table.Add("first"), table.Add("second")
	first.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	second.SetLink(linkTo(echo(t, "127.0.0.3:0")))
	for _, vm := range []*forward.VM{first, second} {
		vm.Announce(listeners(port, "0.0.0.0"))
	}
	// Whichever comes first in the table, the other's listener is gone by then.
	for range 3 {
		for _, name := range []string{"second", "first"} {
			table.SetRules(only(name), nil, nil, nil)
			for vm, n := range map[*forward.VM]string{first: "first", second: "second"} {
				if f := one(t, vm); (f.State == status.Active) != (n == name) {
					t.Fatalf("all to %s, but %s is %+v", name, n, f)
				}
			}
		}
	}
}

func TestStaticForwardsListenBeforeAnythingIsSeen(t *testing.T) {
	port := ownnet.FreePort(t)
	static := func(vm string) []portlist.Listener {
		if vm != "dev" {
			return nil
		}
		return listeners(port, "0.0.0.0")
	}
	table := newTable(t, forward.Config{Rules: asStatic(policy.SamePort), Static: static})
	other := table.Add("other")
	other.Announce(nil)
	vm := table.Add("dev")
	if all := vm.Status(); len(all) != 0 {
		t.Errorf("before the start: %+v", all)
	}
	vm.Announce(nil)
	if f := one(t, vm); f.State != status.Active || len(f.Guest) != 0 || f.Path != "" {
		t.Errorf("%+v", f)
	}
	if all := other.Status(); len(all) != 0 {
		t.Errorf("another VM has it too: %+v", all)
	}
	dialForReset(t, addr("127.0.0.1", port)) // nothing leads to the guest yet

	// There is no agent in the guest: the bridge is enough.
	echo(t, addr("127.0.0.9", port))
	vm.SetBridge(netip.MustParseAddr("127.0.0.9"), nil)
	if f := one(t, vm); f.Path != "bridge" {
		t.Errorf("%+v", f)
	}
	c := dial(t, addr("127.0.0.1", port))
	roundTrip(t, c)

	// Seen, and gone again: one forward all the time.
	vm.Announce(listeners(port, "127.0.0.9"))
	if f := one(t, vm); !slices.Equal(f.Guest, []string{addr("127.0.0.9", port)}) || f.ConnectionsTotal != 2 {
		t.Errorf("%+v", f)
	}
	vm.Announce(nil)
	if f := one(t, vm); f.State != status.Active || len(f.Guest) != 0 {
		t.Errorf("%+v", f)
	}
	table.SetRules(nil, nil, nil, nil)
	if all := vm.Status(); len(all) != 0 {
		t.Errorf("no longer static: %+v", all)
	}
	roundTrip(t, c)
	wantClosed(t, addr("127.0.0.1", port))
}

func TestAWildcardIsOfItsOwnFamilyAndKeepsOthersOut(t *testing.T) {
	port := ownnet.FreePort(t)
	hosts := make(map[string][]netip.AddrPort)
	table := newTable(t, forward.Config{Rules: func(vm string, _ portlist.Listener) policy.Decision {
		return policy.Decision{Host: hosts[vm]}
	}})
	at := func(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), port) }
	hosts["specific"] = []netip.AddrPort{at("127.0.0.1")}
	hosts["all4"] = []netip.AddrPort{at("0.0.0.0")}
	hosts["all6"] = []netip.AddrPort{at("::")}
	hosts["late"] = []netip.AddrPort{at("127.0.0.3")}
	vms := make(map[string]*forward.VM)
	for _, name := range []string{"specific", "all4", "all6", "late"} {
		vms[name] = table.Add(name)
		vms[name].Announce(listeners(port, "0.0.0.0"))
	}
	if f := one(t, vms["all6"]); f.State != status.Active {
		t.Errorf("all of IPv6: %+v", f)
	}
	if f := one(t, vms["all4"]); f.State != status.Claim || f.Reason != addr("0.0.0.0", port)+" is held by VM specific" {
		t.Errorf("%+v", f)
	}
	vms["specific"].Close()
	vms["late"].Close()
	if f := one(t, vms["all4"]); f.State != status.Active {
		t.Errorf("%+v", f)
	}
}

func TestARivalForAnotherPortIsNamedWithIt(t *testing.T) {
	to := ownnet.FreePort(t)
	table := newTable(t, forward.Config{Rules: moved("a:1", map[uint16]uint16{1: to, 2: to})})
	vm := table.Add("dev")
	vm.Announce(append(listeners(1, "0.0.0.0"), listeners(2, "0.0.0.0")...))
	want := addr("127.0.0.1", to) + " is held by VM dev, for its port 1"
	if all := vm.Status(); len(all) != 2 || all[1].State != status.Claim || all[1].Reason != want {
		t.Errorf("%+v", all)
	}
}

func TestWhatOnlyALinkReachesIsKeptInWhileItIsGone(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	local, all := ownnet.FreePort(t), ownnet.FreePort(t)
	announced := append(listeners(local, "127.0.0.1"), listeners(all, "0.0.0.0")...)
	vm.Announce(announced)
	vm.SetBridge(netip.MustParseAddr("127.0.0.9"), nil)
	link := &serve.Link{Path: "vsock", Silent: func() bool { return false }}
	vm.SetLink(link)
	vm.SetLink(nil)
	if f := at(t, vm, addr("127.0.0.1", local)); f.State != status.Active {
		t.Errorf("at once: %+v", f)
	}
	vm.LinkGone()
	want := "there is no link to the guest agent, and " + addr("127.0.0.1", local) + " is not reached at the bridge address 127.0.0.9"
	if f := at(t, vm, addr("127.0.0.1", local)); f.State != status.Ignored || f.Reason != want {
		t.Errorf("%+v", f)
	}
	wantClosed(t, addr("127.0.0.1", local))
	if f := at(t, vm, addr("0.0.0.0", all)); f.State != status.Active {
		t.Errorf("what the bridge reaches: %+v", f)
	}
	vm.SetLink(link)
	if f := at(t, vm, addr("127.0.0.1", local)); f.State != status.Active || f.Reason != "" {
		t.Errorf("with a link again: %+v", f)
	}
}

func TestNothingIsForwardedOnceThereIsNeitherLinkNorBridge(t *testing.T) {
	bridge := netip.MustParseAddr("127.0.0.9")
	for name, lose := range map[string]func(*forward.VM){
		"without a bridge":          func(vm *forward.VM) { vm.LinkGone() },
		"the bridge goes later":     func(vm *forward.VM) { vm.SetBridge(bridge, nil); vm.LinkGone(); vm.SetBridge(netip.Addr{}, nil) },
		"the bridge comes and goes": func(vm *forward.VM) { vm.LinkGone(); vm.SetBridge(bridge, nil); vm.SetBridge(netip.Addr{}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			vm := newTable(t, forward.Config{}).Add("dev")
			port := ownnet.FreePort(t)
			vm.Announce(listeners(port, "0.0.0.0"))
			lose(vm)
			if all := vm.Status(); len(all) != 0 {
				t.Errorf("%+v", all)
			}
			wantClosed(t, addr("127.0.0.1", port))
			vm.SetLink(&serve.Link{Path: "vsock", Silent: func() bool { return false }})
			vm.Announce(listeners(port, "0.0.0.0"))
			if f := one(t, vm); f.State != status.Active {
				t.Errorf("with a link again: %+v", f)
			}
		})
	}
}

func TestWhatOnlyABridgeReachesIsForwardedWhileThereIsOne(t *testing.T) {
	port := ownnet.FreePort(t)
	for name, static := range map[string]policy.Static{
		"seen":     nil,
		"expected": func(string) []portlist.Listener { return listeners(port, "0.0.0.0") },
	} {
		t.Run(name, func(t *testing.T) {
			vm := newTable(t, forward.Config{Rules: asStatic(policy.SamePort), Static: static}).Add("dev")
			bound := listeners(port, "0.0.0.0")
			bound[0].Interface = "eth0"
			vm.Announce(bound)
			without := func() {
				t.Helper()
				if f := one(t, vm); f.State != status.Ignored || !strings.HasPrefix(f.Reason, "bound to eth0 in the guest, and no bridge address is known: ") {
					t.Errorf("%+v", f)
				}
				wantClosed(t, addr("127.0.0.1", port))
			}
			without()
			echo(t, addr("127.0.0.9", port))
			vm.SetBridge(netip.MustParseAddr("127.0.0.9"), nil)
			if f := one(t, vm); f.State != status.Active || f.Path != "bridge" || f.Reason != "" {
				t.Errorf("%+v", f)
			}
			roundTrip(t, dial(t, addr("127.0.0.1", port)))
			vm.SetBridge(netip.Addr{}, nil)
			without()

			// At another of its addresses the bridge does not lead there.
			vm.SetBridge(netip.MustParseAddr("127.0.0.9"), nil)
			bound = listeners(port, "10.0.0.5")
			bound[0].Interface = "eth0"
			vm.Announce(bound)
			if f := one(t, vm); f.State != status.Ignored || !strings.Contains(f.Reason, "is not reached at the bridge address 127.0.0.9") {
				t.Errorf("%+v", f)
			}
		})
	}
}

// aside sends every second port to one address of 127/8, at a port of its own for each
// of the guest's addresses that is not localhost.
func aside(rule string, odd uint16) policy.Rules {
	return func(_ string, l portlist.Listener) policy.Decision {
		if l.Addr.Port()%2 == odd {
			return policy.Decision{Rule: rule, Verdict: status.Ignored, Reason: "odd"}
		}
		return policy.Decision{Rule: rule, Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.99.3.1"), l.Addr.Port())}}
	}
}

// Each announcement is decided on for the ports that changed: all of them have to come to
// what the last one alone comes to.
func TestManyAnnouncementsComeToWhatTheLastOneComesTo(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	static := func(string) []portlist.Listener {
		return slices.Concat(listeners(2003, "127.0.0.1"), listeners(2004, "127.0.0.1"), listeners(2100, "127.0.0.1"))
	}
	shown := func(vm *forward.VM) (all []string) {
		for _, f := range vm.Status() {
			all = append(all, fmt.Sprint(f.Proto, f.Port, f.Guest, f.Host, f.State, f.Reason, f.Process, f.Rule))
		}
		return all
	}
	table := newTable(t, forward.Config{Rules: asStatic(aside("a", 0)), Static: static})
	vm := table.Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	var rules policy.Rules
	var last []portlist.Listener
	for n := range 300 {
		last = nil
		for port := uint16(2000); port < 2020; port++ {
			for _, ip := range []string{"0.0.0.0", "127.0.0.1", "::1"} {
				if dice.IntN(3) == 0 {
					l := listeners(port, ip)[0]
					l.Process = []string{"", "one[1]", "two[2]"}[dice.IntN(3)]
					last = append(last, l)
				}
			}
		}
		if n%50 == 0 {
			rules = asStatic(aside(fmt.Sprint(n), uint16(n/50%2)))
			table.SetRules(rules, static, nil, nil)
		}
		vm.Announce(last)
	}
	many := shown(vm)
	table.Close()
	other := newTable(t, forward.Config{Rules: rules, Static: static}).Add("dev")
	other.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	other.Announce(last)
	if once := shown(other); !slices.Equal(many, once) {
		t.Errorf("after many:\n%s\nafter the last alone:\n%s", strings.Join(many, "\n"), strings.Join(once, "\n"))
	}
}

func TestAnAnnouncementAsksTheRulesAboutThePortsThatChanged(t *testing.T) {
	var asked []uint16
	table := newTable(t, forward.Config{Rules: func(_ string, l portlist.Listener) policy.Decision {
		asked = append(asked, l.Addr.Port())
		return policy.Decision{Verdict: status.Ignored}
	}})
	vm := table.Add("dev")
	var all []portlist.Listener
	for port := range uint16(4000) {
		all = append(all, listeners(20_000+port, "127.0.0.1")...)
	}
	vm.Announce(all)
	asked = nil
	all = append(all[1:], listeners(8080, "0.0.0.0")...)
	vm.Announce(all)
	if !slices.Equal(asked, []uint16{8080}) {
		t.Errorf("the rules were asked about %d ports for one that is new", len(asked))
	}
	if len(vm.Status()) != 4000 {
		t.Errorf("%d forwards", len(vm.Status()))
	}
}
