package forward_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// Own addresses of the VMs of these tests.
const (
	ownOne = "127.64.1.1"
	ownTwo = "127.64.1.2"
)

func withOwn(t *forward.Table, name, ip string) *forward.VM {
	vm := t.Add(name)
	vm.SetLoopback(netip.MustParseAddr(ip))
	return vm
}

// hello is a link to a guest whose every port says the same, and answers no more
// than that.
func hello(t *testing.T, text string) *serve.Link {
	t.Helper()
	return linkTo(service(t, "127.0.0.2:0", func(c net.Conn) { _, _ = io.WriteString(c, text) }))
}

func wantHello(t *testing.T, address, want string) {
	t.Helper()
	if got, err := io.ReadAll(dial(t, address)); err != nil || string(got) != want {
		t.Errorf("%s: read %q, %v; want %q", address, got, err, want)
	}
}

func TestEachVMHasThePortOnAnAddressOfItsOwn(t *testing.T) {
	table := newTable(t, forward.Config{})
	first, second := withOwn(table, "one", ownOne), withOwn(table, "two", ownTwo)
	first.SetLink(hello(t, "one"))
	second.SetLink(hello(t, "two"))
	port := ownnet.FreePort(t)
	first.Announce(listeners(port, "0.0.0.0"))
	second.Announce(listeners(port, "0.0.0.0"))
	wantHello(t, addr("127.0.0.1", port), "one")
	wantHello(t, addr("::1", port), "one")
	wantHello(t, addr(ownOne, port), "one")
	wantHello(t, addr(ownTwo, port), "two")

	localhost := []string{addr("127.0.0.1", port), addr("::1", port)}
	f := one(t, first)
	if all := append(slices.Clone(localhost), addr(ownOne, port)); f.State != status.Active || f.Reason != "" ||
		!slices.Equal(f.Host, all) || !slices.Equal(f.Listening, all) {
		t.Errorf("%+v", f)
	}
	f = one(t, second)
	if f.State != status.Claim || f.Reason != addr("127.0.0.1", port)+" is held by VM one" || f.Path != "vsock" || f.ConnectionsTotal != 1 ||
		!slices.Equal(f.Host, append(localhost, addr(ownTwo, port))) || !slices.Equal(f.Listening, []string{addr(ownTwo, port)}) {
		t.Errorf("%+v", f)
	}
}

func TestTakeOverOfLocalhostLeavesOwnAddressesAlone(t *testing.T) {
	opens := make(map[netip.AddrPort]int) // guarded by the table's lock
	table := newTable(t, forward.Config{Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
		opens[a]++
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
	}})
	first, second := withOwn(table, "one", ownOne), withOwn(table, "two", ownTwo)
	first.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	second.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	first.Announce(listeners(port, "0.0.0.0"))
	second.Announce(listeners(port, "0.0.0.0"))
	var open []net.Conn
	for _, host := range []string{"127.0.0.1", ownOne, ownTwo} {
		c := dial(t, addr(host, port))
		roundTrip(t, c)
		open = append(open, c)
	}

	first.Announce(nil)
	if f := one(t, second); f.State != status.Active || f.Reason != "" || len(f.Listening) != 3 {
		t.Errorf("%+v", f)
	}
	wantClosed(t, addr(ownOne, port))
	for _, c := range append(open, dial(t, addr("127.0.0.1", port)), dial(t, addr(ownTwo, port))) {
		roundTrip(t, c)
	}
	table.Close()
	if n := opens[netip.MustParseAddrPort(addr(ownTwo, port))]; n != 1 {
		t.Errorf("the own address was opened %d times", n)
	}
}

func TestTakenOwnAddressLeavesLocalhostAlone(t *testing.T) {
	var clock clock
	vm := withOwn(newTable(t, forward.Config{Now: clock.now}), "dev", ownOne)
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	taken, err := net.Listen("tcp", addr(ownOne, port))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	vm.Announce(listeners(port, "0.0.0.0"))
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
	eventually(t, vm, "the holder is named", func(all []status.Forward) bool {
		return all[0].State == status.Active && len(all[0].Listening) == 2 && slices.Equal(all[0].Host, all[0].Listening) &&
			strings.Contains(all[0].Reason, addr(ownOne, port)+" is held by forward.test[")
	})
	taken.Close()
	clock.settle(t, vm, addr(ownOne, port))
	eventually(t, vm, "taken over", func(all []status.Forward) bool { return len(all[0].Listening) == 3 && all[0].Reason == "" })
	roundTrip(t, dial(t, addr(ownOne, port)))
}

func TestProgramOnAllAddressesIsNamedForBoth(t *testing.T) {
	var clock clock
	vm := withOwn(newTable(t, forward.Config{Now: clock.now}), "dev", ownOne)
	taken, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).AddrPort().Port()
	vm.Announce(listeners(port, "0.0.0.0"))
	eventually(t, vm, "the holder is named twice", func(all []status.Forward) bool {
		f := all[0]
		return f.State == status.Claim && len(f.Listening) == 0 && f.Path == "" &&
			strings.Contains(f.Reason, addr("127.0.0.1", port)+" is held by forward.test[") &&
			strings.Contains(f.Reason, "; "+addr(ownOne, port)+" is held by forward.test[")
	})
	taken.Close()
	clock.settle(t, vm, addr("127.0.0.1", port))
	eventually(t, vm, "taken over", func(all []status.Forward) bool { return len(all[0].Listening) == 3 })
}

func TestOwnAddressHasTheNumberOfTheGuest(t *testing.T) {
	host, mapped, pinned, kept, socket := ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t), ownnet.FreePort(t)
	path := t.TempDir() + "/s"
	vm := withOwn(newTable(t, forward.Config{Rules: func(_ string, l portlist.Listener) policy.Decision {
		switch l.Addr.Port() {
		case mapped:
			return policy.Decision{Host: []netip.AddrPort{netip.MustParseAddrPort(addr("127.0.0.1", host))}}
		case pinned:
			return policy.Decision{Host: []netip.AddrPort{netip.MustParseAddrPort(addr("127.0.0.9", pinned))}}
		case socket:
			return policy.Decision{HostSocket: path}
		}
		return policy.Decision{Verdict: status.Ignored, Reason: "kept"}
	}}), "dev", ownOne)
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	vm.Announce(slices.Concat(listeners(mapped, "0.0.0.0"), listeners(pinned, "0.0.0.0"), listeners(kept, "0.0.0.0"), listeners(socket, "0.0.0.0")))
	roundTrip(t, dial(t, addr(ownOne, mapped)))
	roundTrip(t, dial(t, addr(ownOne, pinned)))
	for _, port := range []uint16{host, kept, socket} {
		wantClosed(t, addr(ownOne, port))
	}
	wantClosed(t, addr("127.0.0.1", pinned))
	for _, f := range vm.Status() {
		if f.Port == kept && (f.State != status.Ignored || f.Reason != "kept" || len(f.Host) != 0 || len(f.Listening) != 0) {
			t.Errorf("%+v", f)
		}
	}
}

// A rule that asks for all addresses of the host has them, also those that are
// VMs' own, whoever comes first; and while it waits for another program, they do
// not come and go.
func TestRuleForAllAddressesComesBeforeOwnOnes(t *testing.T) {
	port, other := ownnet.FreePort(t), ownnet.FreePort(t)
	var clock clock
	table := newTable(t, forward.Config{Now: clock.now, Rules: func(vm string, l portlist.Listener) policy.Decision {
		if vm == "all" {
			return policy.Decision{Host: []netip.AddrPort{netip.MustParseAddrPort(addr("0.0.0.0", port))}}
		}
		return policy.Decision{Host: []netip.AddrPort{netip.MustParseAddrPort(addr("127.0.0.1", other))}}
	}})
	all, first := withOwn(table, "all", ownTwo), withOwn(table, "one", ownOne)
	all.SetLink(hello(t, "all"))
	first.SetLink(hello(t, "one"))
	first.Announce(listeners(port, "0.0.0.0"))
	wantHello(t, addr(ownOne, port), "one")

	taken, err := net.Listen("tcp", addr("127.0.0.8", port))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	all.Announce(listeners(port, "0.0.0.0"))
	wantClosed(t, addr(ownOne, port))
	if f := one(t, first); f.State != status.Active || len(f.Listening) != 1 || f.Reason != addr(ownOne, port)+" is wanted by VM all" {
		t.Errorf("%+v", f)
	}
	taken.Close()
	clock.settle(t, all, addr("0.0.0.0", port))
	eventually(t, all, "all addresses", inState(status.Active))
	eventually(t, first, "told", func(fs []status.Forward) bool { return fs[0].Reason == addr(ownOne, port)+" is held by VM all" })
	if f := one(t, all); !slices.Equal(f.Listening, []string{addr("0.0.0.0", port)}) || f.Reason != "" {
		t.Errorf("%+v", f)
	}
	wantHello(t, addr(ownTwo, port), "all")

	all.Announce(nil)
	eventually(t, first, "back", func(fs []status.Forward) bool { return len(fs[0].Listening) == 2 && fs[0].Reason == "" })
	wantHello(t, addr(ownOne, port), "one")
	all.Close()
}

func TestUDPIsOnTheOwnAddressToo(t *testing.T) {
	table := newTable(t, forward.Config{})
	first, second := withOwn(table, "one", ownOne), withOwn(table, "two", ownTwo)
	port, _ := udpEcho(t, addr(guestIP, ownnet.FreePort(t)))
	for _, vm := range []*forward.VM{first, second} {
		vm.SetLink(udpLink(t))
		vm.Announce(udpListeners(port, guestIP))
	}
	client := dialUDP(t, addr(ownTwo, port)) // connected: takes answers from there alone
	for _, c := range []net.Conn{dialUDP(t, addr("127.0.0.1", port)), dialUDP(t, addr(ownOne, port)), client} {
		if err := ask(c, []byte("hello"), patience); err != nil {
			t.Errorf("%v: %v", c.RemoteAddr(), err)
		}
	}
	if f := one(t, second); f.State != status.Claim || !slices.Equal(f.Listening, []string{addr(ownTwo, port)}) || f.ConnectionsActive != 1 {
		t.Errorf("%+v", f)
	}
	first.Close()
	if f := one(t, second); f.State != status.Active {
		t.Errorf("%+v", f)
	}
	if err := ask(client, []byte("the same flow"), patience); err != nil {
		t.Error(err)
	}
	if f := one(t, second); f.ConnectionsTotal != 1 {
		t.Errorf("the take-over began the flow anew: %+v", f)
	}
}

func TestDeniedPortNamesOneRemedyForBothAddresses(t *testing.T) {
	var host atomic.Uint32
	host.Store(80)
	denied := func(a netip.AddrPort) (*net.TCPListener, error) {
		if a.Port() < 1024 {
			return nil, &net.OpError{Op: "listen", Err: unixErr("bind", eacces)}
		}
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
	}
	rules := func(string, portlist.Listener) policy.Decision {
		return policy.Decision{Host: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(host.Load()))}}
	}
	table := newTable(t, forward.Config{Listen: denied, Rules: rules})
	vm := withOwn(table, "dev", ownOne)
	vm.Announce(listeners(80, "0.0.0.0"))
	f := one(t, vm)
	if f.State != status.Denied || strings.Count(f.Reason, "needs a permission") != 1 || len(f.Listening) != 0 {
		t.Errorf("%+v", f)
	}
	host.Store(uint32(ownnet.FreePort(t)))
	table.SetRules(rules, nil, nil, nil)
	f = one(t, vm)
	if f.State != status.Active || !strings.HasPrefix(f.Reason, ownOne+":80 needs a permission") || len(f.Listening) != 1 {
		t.Errorf("%+v", f)
	}
}

func TestNewLoopbackAddressMovesTheListenersAtOnce(t *testing.T) {
	vm := newTable(t, forward.Config{}).Add("dev")
	vm.SetLink(linkTo(echo(t, "127.0.0.2:0")))
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "0.0.0.0"))
	wantClosed(t, addr(ownOne, port))
	vm.SetLoopback(netip.MustParseAddr(ownOne))
	c := dial(t, addr(ownOne, port))
	roundTrip(t, c)
	vm.SetLoopback(netip.MustParseAddr(ownTwo))
	wantClosed(t, addr(ownOne, port))
	roundTrip(t, dial(t, addr(ownTwo, port)))
	roundTrip(t, c)
	vm.SetLoopback(netip.Addr{})
	wantClosed(t, addr(ownTwo, port))
	roundTrip(t, dial(t, addr("127.0.0.1", port)))
	if f := one(t, vm); len(f.Listening) != 2 {
		t.Errorf("%+v", f)
	}
}

// As from an agent in a container in the host's own network. A VM announces the
// same addresses, and means its own.
func TestOwnListenerThatIsAnnouncedBackIsLeftOut(t *testing.T) {
	vm := withOwn(newTable(t, forward.Config{}), "dev", ownOne)
	port := ownnet.FreePort(t)
	vm.Announce(listeners(port, "127.0.0.7"))
	want := func() {
		t.Helper()
		if f := one(t, vm); fmt.Sprint(f.Guest) != fmt.Sprint([]string{addr("127.0.0.7", port)}) || len(f.Listening) != 3 {
			t.Errorf("%+v", f)
		}
	}
	want()
	var scanner portwatch.Scanner
	defer scanner.Close()
	all, err := scanner.Scan()
	if err != nil {
		t.Fatal(err)
	}
	back := slices.DeleteFunc(all, func(l portlist.Listener) bool { return l.Addr.Port() != port })
	if len(back) != 3 {
		t.Fatalf("three listeners should be seen: %v", back)
	}
	vm.Announce(append(slices.Clone(back), listeners(port, "127.0.0.7")...))
	want()
	vm.Announce(back)
	if all := vm.Status(); len(all) != 0 {
		t.Errorf("a forward keeps itself open: %+v", all)
	}
	vm.Announce(back) // as a scan that was under way may still have it
	if all := vm.Status(); len(all) != 0 {
		t.Errorf("a forward is made of its own listeners: %+v", all)
	}
	vm.Announce(listeners(port, "127.0.0.1", ownOne))
	if len(vm.Status()) == 0 {
		t.Error("a VM's own listener is taken for ours by its address")
	}
}

func TestGuestCannotTakeTheWholeHostOnItsOwnAddress(t *testing.T) {
	var open atomic.Int32
	vm := withOwn(newTable(t, forward.Config{Listen: func(a netip.AddrPort) (*net.TCPListener, error) {
		if a.Addr() != netip.MustParseAddr(ownOne) {
			return nil, unixErr("bind", unix.ENETDOWN)
		}
		open.Add(1)
		return net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	}}), "dev", ownOne)
	var all []portlist.Listener
	for port := range uint16(1100) {
		all = append(all, listeners(port+1, "0.0.0.0")...)
	}
	vm.Announce(all)
	if open.Load() != 1024 {
		t.Errorf("%d listeners", open.Load())
	}
	if last := vm.Status()[1099]; !strings.Contains(last.Reason, "which is the most") {
		t.Errorf("%+v", last)
	}
}
