package hostagent_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// at is what has, or waits for, an address: "STATE GUEST-PORT", by guest port.
func at(vm status.VM, address string) string {
	var out []string
	for _, f := range vm.Forwards {
		for _, h := range f.Host {
			if h == address {
				out = append(out, fmt.Sprintf("%s %d", f.State, f.Port))
			}
		}
	}
	return strings.Join(out, ", ")
}

// A rule and [auto_ports] of one file want one host port: the rule's is the one that was named.
func TestWhatARuleNamesComesBeforeAutomaticForwardsOfItsVM(t *testing.T) {
	low, high := echo(t), echo(t)
	if low > high {
		low, high = high, low
	}
	for name, text := range map[string]string{
		"ports":                "[[ports]]\nhost = %d\nguest = %d\n",
		"forward":              "[[forward]]\nhost = %d\nguest = %d\n",
		"static":               "[[forward]]\nstatic = true\nhost = %d\nguest = %d\n",
		"automatic everywhere": "[[forward]]\nhost = %d\nguest = %d\n[auto_ports]\nbind = \"0.0.0.0\"\n",
	} {
		for _, p := range [][2]uint16{{low, high}, {high, low}} {
			for _, later := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, host %d, guest %d, saved later %v", name, p[0], p[1], later), func(t *testing.T) {
					ruleComesFirst(t, text, p[0], p[1], later)
				})
			}
		}
	}
}

// ruleComesFirst has a rule that puts one port of a guest where an automatic forward has another. later is that the
// ports are forwarded already when it is saved.
func ruleComesFirst(t *testing.T, text string, auto, named uint16, later bool) {
	g := newGuest(t)
	g.start()
	a := startAgent(t)
	g.announce(auto, named)
	ruled := rules(t, text, auto, named)
	if !later {
		a.SetRules(ruled)
	}
	add(t, a, g.vm("dev"))
	within(t, a, patience, "announced", func(vms []status.VM) bool { return len(vms[0].Forwards) == 2 })
	a.SetRules(ruled)
	for _, f := range a.Status().VMs[0].Forwards {
		switch {
		case f.Port == named && f.State == status.Active:
		case f.Port == auto && f.State == status.Claim && strings.Contains(f.Reason, fmt.Sprintf("for its port %d", named)):
		default:
			t.Errorf("%+v", f)
		}
	}
	if err := roundTrip(auto); err != nil {
		t.Error(err)
	}
	// What the rule gives up is the automatic one's again.
	a.SetRules(nil)
	if got, want := at(a.Status().VMs[0], onHost(auto)), fmt.Sprintf("active %d", auto); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestARuleThatWaitsIsNotOvertakenByAnAutomaticForward(t *testing.T) {
	auto, named := echo(t), echo(t)
	l, err := net.Listen("tcp", fmt.Sprintf("[::1]:%d", auto))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := newGuest(t)
	g.start()
	a := startAgent(t)
	g.announce(auto, named)
	// The automatic one could have its address now; the rule's needs both.
	a.SetRules(rules(t, "[[forward]]\nhost = %d\nguest = %d\n[auto_ports]\nbind = \"127.0.0.1\"\n", auto, named))
	add(t, a, g.vm("dev"))
	within(t, a, patience, "announced", func(vms []status.VM) bool { return len(vms[0].Forwards) == 2 })
	for _, f := range a.Status().VMs[0].Forwards {
		if f.State != status.Claim {
			t.Errorf("%+v", f)
		}
	}
}

// A forward stays the same while a rule begins or ceases to name it; who comes first changes.
func TestAForwardThatARuleNamesNoMoreGivesWay(t *testing.T) {
	one, two := echo(t), echo(t)
	g := newGuest(t)
	g.start()
	a := startAgent(t)
	g.announce(one, two)
	add(t, a, g.vm("dev"))
	within(t, a, patience, "announced", active(0, 2))
	for _, c := range []struct{ guest, host uint16 }{{one, one}, {two, one}, {one, one}, {one, two}, {two, two}} {
		a.SetRules(rules(t, "[[ports]]\nguest = %d\nhost = %d\n", c.guest, c.host))
		if got, want := at(a.Status().VMs[0], onHost(c.host)), fmt.Sprintf("active %d", c.guest); !strings.Contains(got, want) {
			t.Errorf("guest %d, host %d: %q: %+v", c.guest, c.host, got, a.Status().VMs[0].Forwards)
		}
	}
}

// Between VMs who comes first has an address, whatever names it.
func TestARuleTakesNothingFromAnotherVM(t *testing.T) {
	port, other := echo(t), echo(t)
	a := startAgent(t)
	for _, name := range []string{"one", "two"} {
		g := newGuest(t)
		g.start()
		g.announce(map[string]uint16{"one": port, "two": other}[name])
		add(t, a, g.vm(name))
	}
	within(t, a, patience, "one is open", active(0, 1))
	within(t, a, patience, "two is open", active(1, 1))
	a.SetRules(rules(t, "[[ports]]\nvm = \"two\"\nguest = %d\nhost = %d\n", other, port))
	vms := a.Status().VMs
	if f := vms[0].Forwards[0]; f.State != status.Active {
		t.Errorf("%+v", f)
	}
	if f := vms[1].Forwards[0]; f.State != status.Claim || !strings.Contains(f.Reason, "held by VM one") {
		t.Errorf("%+v", f)
	}
}

// The next free port is nobody's place: neither that of a sibling of one range, nor of another rule.
func TestTheNextPortIsLeftToTheRulesThatNameIt(t *testing.T) {
	g, a := newGuest(t), startAgent(t)
	ports := []uint16{4500, 4501, 4502, 4600}
	g.announce(ports...)
	g.start()
	for _, port := range []int{14500, 14501} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	a.SetRules(rules(t, "[[forward]]\nguest = \"4500-4502\"\nhost = \"14500-14502\"\non_conflict = \"next\"\n[[forward]]\nguest = 4600\nhost = 14503\n"))
	add(t, a, g.vm("dev"))
	want := func(places map[uint16]int) {
		t.Helper()
		for _, f := range a.Status().VMs[0].Forwards {
			if got := fmt.Sprintf("127.0.0.1:%d", places[f.Port]); f.State != status.Active || f.Listening[0] != got {
				t.Errorf("want %s of %+v", got, f)
			}
		}
	}
	within(t, a, patience, "forwarded", active(0, len(ports)))
	want(map[uint16]int{4500: 14504, 4501: 14505, 4502: 14502, 4600: 14503})
	// A command names ports as a file does.
	if _, err := a.AddForward("dev", "14504:4600", "tcp", 0); err != nil {
		t.Fatal(err)
	}
	within(t, a, patience, "what is added has its port", func(vms []status.VM) bool { return at(vms[0], "127.0.0.1:14504") == "active 4600" })
	if got := at(a.Status().VMs[0], "127.0.0.1:14506"); got != "active 4500" {
		t.Errorf("%q: %+v", got, a.Status().VMs[0].Forwards)
	}
}
