package forward_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/reverse"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// asked is a link that notes what is to be open in the guest.
func asked(to *[]*announce.Reverse) *serve.Link {
	l := brokenLink()
	l.Reverse = func(rs []*announce.Reverse) error { *to = rs; return nil }
	return l
}

func reverseRule(guest, host string) reverse.Rule {
	return reverse.Rule{
		Rule:  "rum.toml:1",
		Guest: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:" + guest), netip.MustParseAddrPort("[::1]:" + guest)},
		Host:  []netip.AddrPort{netip.MustParseAddrPort(host)},
	}
}

func reverses(rules ...reverse.Rule) reverse.Rules {
	return func(string) []reverse.Rule { return rules }
}

func TestAReverseRuleSaysHowItsListenersAre(t *testing.T) {
	table := newTable(t, forward.Config{Reverse: reverses(reverseRule("9000", "127.0.0.1:80"))})
	vm := table.Add("dev")
	if f := one(t, vm); !f.Reverse || f.State != status.Claim || !strings.Contains(f.Reason, "no link") || f.Port != 9000 {
		t.Errorf("without a link: %+v", f)
	}
	var open []*announce.Reverse
	vm.SetLink(asked(&open))
	if len(open) != 2 || fmt.Sprint(open[0].Listen, open[1].Listen) != "tcp 127.0.0.1:9000 tcp [::1]:9000" {
		t.Fatalf("asked for %+v", open)
	}
	for _, step := range []struct {
		end    int
		state  wire.ReverseState
		want   string
		reason string
	}{
		{0, wire.ReverseListening, status.Claim, "not said yet"},
		{1, wire.ReverseUnavailable, status.Active, ""}, // a guest without IPv6
		{1, wire.ReverseInUse, status.Claim, "in the guest: why"},
		{1, wire.ReverseListening, status.Active, ""},
		{0, wire.ReverseUnavailable, status.Claim, "in the guest: why"},
		{0, wire.ReverseDenied, status.Denied, "in the guest: why"},
	} {
		open[step.end].State(step.state, "why")
		if f := one(t, vm); f.State != step.want || !strings.Contains(f.Reason, step.reason) || (f.Reason == "") != (step.reason == "") {
			t.Errorf("%+v: %+v", step, f)
		}
	}
	vm.SetLink(nil)
	vm.SetLink(asked(&open))
	if f := one(t, vm); f.State != status.Claim || !strings.Contains(f.Reason, "not said yet") {
		t.Errorf("another link: %+v", f)
	}
}

func TestNewRulesLeaveReverseListenersAloneThatStayTheSame(t *testing.T) {
	stays, goes, comes := reverseRule("1", "127.0.0.1:1"), reverseRule("2", "127.0.0.1:2"), reverseRule("3", "127.0.0.1:3")
	table := newTable(t, forward.Config{Reverse: reverses(goes, stays)})
	vm := table.Add("dev")
	var open []*announce.Reverse
	vm.SetLink(asked(&open))
	before := open
	stays.Rule = "rum.toml:7"
	table.SetReverse(reverses(stays, comes))
	if len(open) != 4 || open[0] != before[2] || open[1] != before[3] {
		t.Errorf("listeners were replaced: %v, then %v", before, open)
	}
	if all := vm.Status(); len(all) != 2 || all[0].Rule != "rum.toml:7" || all[1].Port != 3 {
		t.Errorf("%+v", all)
	}
	table.SetReverse(nil)
	if len(open) != 0 || len(vm.Status()) != 0 {
		t.Errorf("%d listeners are left, %+v", len(open), vm.Status())
	}
}

func TestAReverseRuleTriesTheAddressesOfTheHostAndCounts(t *testing.T) {
	server := echo(t, "127.0.0.3:0")
	rule := reverseRule("9000", "127.0.0.2:1")
	rule.Host = append(rule.Host, netip.MustParseAddrPort(server))
	vm := newTable(t, forward.Config{Reverse: reverses(rule)}).Add("dev")
	var open []*announce.Reverse
	vm.SetLink(asked(&open))
	c, err := open[0].Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	roundTrip(t, c)
	if f := one(t, vm); f.ConnectionsActive != 1 || f.ConnectionsTotal != 1 {
		t.Errorf("%+v", f)
	}
	open[0].Ended(net.ErrClosed)
	if f := one(t, vm); f.ConnectionsActive != 0 || f.LastError == "" || f.LastErrorAt == nil {
		t.Errorf("%+v", f)
	}
}

func TestMoreReverseListenersThanAGuestTakesAreDenied(t *testing.T) {
	var rules []reverse.Rule
	for port := range wire.MaxReverse/2 + 1 {
		rules = append(rules, reverseRule(fmt.Sprint(1+port), "127.0.0.1:80"))
	}
	vm := newTable(t, forward.Config{Reverse: reverses(rules...)}).Add("dev")
	var open []*announce.Reverse
	vm.SetLink(asked(&open))
	for _, r := range open {
		r.State(wire.ReverseListening, "")
	}
	all := vm.Status()
	if len(open) != wire.MaxReverse || all[0].State != status.Active || all[len(all)-1].State != status.Denied {
		t.Errorf("%d asked for; %+v, %+v", len(open), all[0], all[len(all)-1])
	}
}

// Whoever has the control socket commands the agent.
func TestNoReverseRuleLeadsToTheControlSocket(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "control.sock")
	l, err := net.Listen("unix", own)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	soft, hard, later := filepath.Join(dir, "soft"), filepath.Join(dir, "hard"), filepath.Join(dir, "later")
	for _, err := range []error{os.Symlink(own, soft), os.Link(own, hard)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var open []*announce.Reverse
	for _, path := range []string{own, soft, hard, filepath.Join(dir, "..", filepath.Base(dir), "control.sock"), later} {
		table := newTable(t, forward.Config{ControlSocket: own, Reverse: reverses(reverse.Rule{Rule: "rum.toml:1", GuestSocket: "/run/it", HostSocket: path})})
		vm := table.Add("dev")
		vm.SetLink(asked(&open))
		f := one(t, vm)
		if denied := f.State == status.Denied && strings.Contains(f.Reason, "control socket"); denied == (path == later) || len(open) == 1 != (path == later) {
			t.Errorf("%s: %+v, and %d listeners", path, f, len(open))
		}
	}
	// What leads there since the guest was asked to listen is as little use to it.
	if err := os.Symlink(own, later); err != nil {
		t.Fatal(err)
	}
	if c, err := open[0].Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "control socket") {
		t.Errorf("%v, %v", c, err)
	}
}
