package hostagent_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

func rules(t *testing.T, format string, args ...any) config.Rules {
	t.Helper()
	c, err := config.Parse("rum.toml", fmt.Appendf(nil, format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return c.Rules
}

func open(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// say sends a text over a connection and wants it back.
func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v", got, err)
	}
}

func TestReloadUnderAThousandOpenConnectionsDropsNone(t *testing.T) {
	const connections = 1000
	g := newGuest(t)
	g.start()
	a := startAgent(t)
	port := echo(t)
	g.announce(port)
	a.SetRules(rules(t, "[[ports]]\nguest = %d\n", port))
	add(t, a, g.vm("dev"))
	within(t, a, patience, "forwarded", active(0, 1))
	all := make([]net.Conn, connections)
	for i := range all {
		all[i] = open(t, onHost(port))
		say(t, all[i], "before")
	}
	for range 5 {
		a.SetRules(rules(t, "# another\n[[ports]]\nguest = 1\nignore = true\n[[ports]]\nguest_ip = \"127.0.0.2\"\n"))
		a.SetRules(nil)
		a.SetRules(rules(t, "\n\n\n[[ports]]\nguest = %d\n", port))
	}
	for _, c := range all {
		say(t, c, "after")
	}
	f := a.Status().VMs[0].Forwards[0]
	if f.ConnectionsActive != connections || f.ConnectionsTotal != connections || f.Rule != "rum.toml:4" {
		t.Errorf("%+v", f)
	}
	// Even a rule that takes the port away lets connections end by themselves.
	a.SetRules(rules(t, "[[ports]]\nignore = true\n"))
	for _, c := range all {
		say(t, c, "ignored")
	}
	if c, err := net.DialTimeout("tcp", onHost(port), patience); err == nil {
		c.Close()
		t.Error("an ignored port answers")
	}
}

func TestStaticPortsNeedNoAgentInTheGuest(t *testing.T) {
	port, other := echo(t), echo(t)
	a := startAgent(t)
	a.SetRules(rules(t, "[[ports]]\nvm = \"dev\"\nguest = %d\nstatic = true\n", port))
	// Nobody serves the socket. The one VM has a bridge, the other is not meant.
	add(t, a, hostagent.VM{Name: "dev", Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: "/nowhere/agent.sock"}, Bridge: guestIP})
	add(t, a, hostagent.VM{Name: "bare", Problem: "it has neither vsock nor a channel", Bridge: netip.MustParseAddr("127.0.0.3")})
	within(t, a, patience, "open", active(0, 1))
	say(t, open(t, onHost(port)), "hello")
	vms := a.Status().VMs
	if len(vms[1].Forwards) != 0 {
		t.Errorf("%+v", vms[1])
	}
	if f := vms[0].Forwards[0]; f.State != status.Active || f.Path != "bridge" || f.Rule != "rum.toml:1" || len(f.Guest) != 0 {
		t.Errorf("%+v", f)
	}
	// A rule that comes later is opened at once, for the VM without any endpoint too.
	a.SetRules(rules(t, "[[ports]]\nguest = %d\nstatic = true\nhost_ip = \"127.0.0.1\"\n", other))
	within(t, a, patience, "open for one, and a claim of the other", func(vms []status.VM) bool {
		return active(0, 1)(vms) && len(vms[1].Forwards) == 1 && vms[1].Forwards[0].State == status.Claim
	})
	say(t, open(t, onHost(other)), "hello")

	// What another rule adds for the same port waits for a service.
	a.SetRules(rules(t, "[[forward]]\nvm = \"dev\"\nguest = 3000\nhost = %d\nstatic = true\n[[forward]]\nvm = \"dev\"\nguest = 3000\nhost = %d\n", port, other))
	within(t, a, patience, "the static rule's place alone", func(vms []status.VM) bool {
		return active(0, 1)(vms) && len(vms[1].Forwards) == 0 && vms[0].Forwards[0].OnHost(port)
	})
}

func TestAStatusOfManyPortsHasAllOfThoseWithFewAndCountsTheOthers(t *testing.T) {
	a := startAgent(t)
	vms := map[string]int{"large": 900, "larger": 1000, "small": 3}
	text, first := "", 20_000
	for _, name := range []string{"large", "larger", "small"} {
		text += fmt.Sprintf("[[forward]]\nvm = %q\nguest = \"%d-%d\"\nstatic = true\n", name, first, first+vms[name]-1)
		first += vms[name]
	}
	a.SetRules(rules(t, "%s", text))
	for name := range vms {
		add(t, a, hostagent.VM{Name: name, Problem: "it is made of rules alone"})
	}
	within(t, a, patience, "all are there", func(all []status.VM) bool {
		n := 0
		for _, vm := range all {
			n += len(vm.Forwards)
		}
		return n == 1903
	})
	shown := 0
	for vm := range a.VMs(status.Query{Rows: 200}) {
		rest := 0
		for _, n := range vm.More {
			rest += n
		}
		if len(vm.Forwards)+rest != vms[vm.Name] {
			t.Errorf("%s has %d forwards and %d more, not %d", vm.Name, len(vm.Forwards), rest, vms[vm.Name])
		}
		if vm.Name == "small" && len(vm.Forwards) != 3 {
			t.Errorf("of %s, %d are shown", vm.Name, len(vm.Forwards))
		}
		shown += len(vm.Forwards)
	}
	if shown < 190 || shown > 200 {
		t.Errorf("%d are shown", shown)
	}
	for vm := range a.VMs(status.Query{VM: "large"}) {
		if len(vm.Forwards) != 900 {
			t.Errorf("of %s alone, %d are shown", vm.Name, len(vm.Forwards))
		}
	}
}
