package hostagent_test

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// someone is a client whose address nobody wants to know.
var someone netip.AddrPort

// meantBy is a client that knows a port.
func meantBy(port uint16) func(uint16, string) bool {
	return func(p uint16, _ string) bool { return p == port }
}

func TestOnlyWhatRulesPutOnTheHostIsFoundByName(t *testing.T) {
	t.Parallel()
	a, _, _, port := startTwo(t)
	within(t, a, patience, "second waits for it", func(vms []status.VM) bool {
		return len(vms[1].Forwards) == 1 && vms[1].Forwards[0].State == status.Claim
	})
	keys := make(map[string]bool)
	for _, vm := range []string{"one", "two"} { // the second has no address on localhost
		key, connect := a.Carried(vm, someone, someone, meantBy(port))
		if connect == nil {
			t.Fatalf("port %d of %s is not found", port, vm)
		}
		keys[key] = true
		c, err := connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		say(t, c, "hello, "+vm)
		_ = c.Close()
	}
	if len(keys) != 2 {
		t.Errorf("services of two VMs have the same key %v", keys)
	}
	byLabel := func(_ uint16, label string) bool { return label == "shop" }
	for _, vm := range []string{"one", "nobody"} {
		if _, connect := a.Carried(vm, someone, someone, byLabel); connect != nil {
			t.Errorf("%s has something of that label", vm)
		}
	}
	a.SetRules(rules(t, "[[ports]]\nguest = %d\nlabel = \"shop\"\n", port))
	if _, connect := a.Carried("one", someone, someone, byLabel); connect == nil {
		t.Error("the label of a rule leads nowhere")
	}
	a.SetRules(rules(t, "[[ports]]\nguest = %d\nlabel = \"shop\"\nignore = true\n", port))
	for _, meant := range []func(uint16, string) bool{meantBy(port), byLabel} {
		if _, connect := a.Carried("one", someone, someone, meant); connect != nil {
			t.Error("a port that rules keep in the guest is found")
		}
	}
}

func TestWhatThisAgentListensAtItselfIsAClaimThatNamesIt(t *testing.T) {
	t.Parallel()
	a, g, port := startAgent(t), newGuest(t), echo(t)
	addr := netip.MustParseAddrPort(onHost(port))
	l, err := a.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	g.announce(port)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "a claim", func(vms []status.VM) bool {
		f := vms[0].Forwards
		return len(f) == 1 && f[0].State == status.Claim && strings.Contains(f[0].Reason, onHost(port)+" is held by "+status.OwnPage)
	})
	_ = l.Close()
	within(t, a, patience, "forwarded", active(0, 1))
	if l, err := a.Listen(addr); err == nil || err.Error() != onHost(port)+" is held by VM dev, for its port "+strings.Split(onHost(port), ":")[1] {
		t.Errorf("%v, %v", l, err)
	}
}

func TestWhoHasTheAddressOfThePageIsNamed(t *testing.T) {
	t.Parallel()
	a, port := startAgent(t), echo(t) // which is at 127.0.0.2
	addr := netip.AddrPortFrom(guestIP, port)
	if _, err := a.Listen(addr); err == nil || !strings.HasPrefix(err.Error(), addr.String()+" is held by ") {
		t.Errorf("%v", err)
	}
}

func TestAConnectionByNameCountsAndWhenItIsCutItDoesNotEnd(t *testing.T) {
	t.Parallel()
	a, g, port := startAgent(t), newGuest(t), echo(t)
	g.announce(port)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "forwarded", active(0, 1))
	_, connect := a.Carried("dev", someone, someone, meantBy(port))
	for range 2 {
		c, err := connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		say(t, c, "hello")
		_ = c.Close()
	}
	c, err := connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(t, c, "hello")
	f := a.Status().VMs[0].Forwards[0]
	if f.ConnectionsTotal != 3 || f.ConnectionsActive != 1 || f.BytesIn != 15 || f.BytesOut != 15 || f.LastError != "" {
		t.Errorf("%+v", f)
	}
	g.stop()
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("what was cut reads as %d bytes and %v", n, err)
	}
	within(t, a, patience, "the error", func(vms []status.VM) bool {
		return len(vms[0].Forwards) == 1 && vms[0].Forwards[0].LastErrorKind == status.ErrorCut
	})
}
