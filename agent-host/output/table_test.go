package output

import (
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

func example() status.Status {
	return status.Status{VMs: []status.VM{
		{
			Name: "dev", Endpoint: "vsock:3:1021", State: status.Connected, Auth: "psk", AgentVersion: "1.2", Loopback: "127.77.3.9",
			Warning: "the guest agent is older",
			Forwards: []status.Forward{
				{Proto: "tcp", Port: 8080, State: status.Active, Host: []string{"127.0.0.1:8080", "[::1]:8080"}, Guest: []string{"0.0.0.0:8080"},
					Path: "vsock", Process: "nginx[812]", ConnectionsActive: 1, ConnectionsTotal: 5},
				{Proto: "tcp", Port: 80, State: status.Claim, Host: []string{"127.0.0.1:80"}, Guest: []string{"[::]:80"}, Reason: "held by apache2[7]"},
				{Proto: "udp", Port: 53, State: status.Claim, Host: []string{"127.0.0.1:53", "127.77.3.9:53"}, Listening: []string{"127.77.3.9:53"},
					Guest: []string{"[::]:53"}, Path: "vsock", Reason: "held by dnsmasq[9]"},
				{Proto: "udp", Port: 69, State: status.Active, Host: []string{"127.0.0.1:69"}, Listening: []string{"127.0.0.1:69"},
					Guest: []string{"[::]:69"}, Path: "vsock", Reason: "127.77.3.9:69 is held by tftpd[3]"},
			},
		},
		{Name: "old", Endpoint: "unix:/x", State: status.Down, Error: "connect: no such file"},
	}}
}

func TestTableIsAligned(t *testing.T) {
	var b strings.Builder
	if err := Status(&b, example(), Look{}); err != nil {
		t.Fatal(err)
	}
	want := `old  down  unix:/x
  error: connect: no such file

dev  connected  vsock:3:1021  auth psk  agent 1.2  loopback 127.77.3.9
  warning: the guest agent is older
  PORT      STATE   HOST                       GUEST         PATH   PROCESS     CONNS  REASON
! 80/tcp    claim   127.0.0.1:80               [::]:80       -      -           0/0    held by apache2[7]
! 53/udp    claim   127.0.0.1:53               [::]:53       vsock  -           0/0    held by dnsmasq[9]; open on 127.77.3.9:53
  8080/tcp  active  127.0.0.1:8080,[::1]:8080  0.0.0.0:8080  vsock  nginx[812]  1/5
  69/udp    active  127.0.0.1:69               [::]:69       vsock  -           0/0    127.77.3.9:69 is held by tftpd[3]
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestALabelHasAColumnWhereThereIsOne(t *testing.T) {
	st := example()
	st.VMs[0].Forwards = st.VMs[0].Forwards[:2]
	st.VMs[0].Forwards[1].Label = "the \x1b[2Jshop"
	var b strings.Builder
	if err := Status(&b, st, Look{}); err != nil {
		t.Fatal(err)
	}
	want := `  PORT      LABEL         STATE   HOST                       GUEST         PATH   PROCESS     CONNS  REASON
! 80/tcp    the ?[2Jshop  claim   127.0.0.1:80               [::]:80       -      -           0/0    held by apache2[7]
  8080/tcp  -             active  127.0.0.1:8080,[::1]:8080  0.0.0.0:8080  vsock  nginx[812]  1/5
`
	if !strings.Contains(b.String(), want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestAnErrorAgesOutOfTheTable(t *testing.T) {
	now := time.Now()
	for age, want := range map[time.Duration]string{
		90 * time.Second: "last error, 1m30s ago: guest: refused",
		11 * time.Minute: "",
		-time.Hour:       "last error, 0s ago: guest: refused", // the clock was set back
	} {
		at := now.Add(-age)
		got := reason(&status.VM{}, &status.Forward{State: status.Active, LastError: "guest: refused", LastErrorAt: &at})
		if got != want {
			t.Errorf("after %v: %q", age, got)
		}
	}
}

func TestAnErrorOfALinkThatIsBackIsNoProblemOfThePort(t *testing.T) {
	lost := time.Now().Add(-time.Minute)
	f := status.Forward{State: status.Active, LastError: "link lost", LastErrorKind: status.ErrorCut, LastErrorAt: &lost}
	vm := status.VM{State: status.Connected, Since: lost.Add(time.Second)}
	if got := reason(&vm, &f); got != "" || urgency(&vm, &f) == 0 {
		t.Errorf("after the link came back: %q", got)
	}
	vm.Since = lost.Add(-time.Second)
	if got := reason(&vm, &f); got == "" {
		t.Error("while the link is the same it is not told")
	}
	f.LastErrorKind, vm.Since = "refused", lost.Add(time.Second)
	if got := reason(&vm, &f); got == "" {
		t.Error("of the service it is not told")
	}
}

func TestWhatIsNotShownIsCounted(t *testing.T) {
	for want, more := range map[string]map[string]int{
		"  and 896 more: 824 active, 72 denied; see all with: rum-host-agent status dev\n":           {status.Denied: 72, status.Active: 824},
		"  and 3896 more: 824 active, 3072 denied; see all with: rum-host-agent status dev --json\n": {status.Denied: 3072, status.Active: 824},
	} {
		st := status.Status{VMs: []status.VM{{Name: "dev", More: more}}}
		var b strings.Builder
		if err := Status(&b, st, Look{}); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(b.String(), want) {
			t.Errorf("got\n%s\nwant\n%s", b.String(), want)
		}
	}
}

func TestColourChangesNothingElse(t *testing.T) {
	var plain, coloured strings.Builder
	_ = Status(&plain, example(), Look{})
	_ = Status(&coloured, example(), Look{Colour: true})
	text := coloured.String()
	if !strings.Contains(text, "\x1b[32mactive\x1b[0m") {
		t.Errorf("no colour in %q", text)
	}
	for _, code := range []string{"32", "33", "31", "2", "0"} {
		text = strings.ReplaceAll(text, "\x1b["+code+"m", "")
	}
	if text != plain.String() {
		t.Errorf("got\n%s\nwant\n%s", text, plain.String())
	}
}

func TestGuestCannotWriteToTheTerminal(t *testing.T) {
	evil := "\x1b]0;owned\x07\r\n\u202eabc\u200b" + strings.Repeat("x", 10_000) + "\xff\u009b31m"
	st := status.Status{VMs: []status.VM{{
		Name: evil, Endpoint: evil, State: evil, Auth: evil, AgentVersion: evil, BridgeIP: evil, Loopback: evil, Error: evil, Warning: evil,
		Forwards: []status.Forward{{
			Proto: evil, State: evil, Reason: evil, Path: evil, Process: evil, LastError: evil,
			Host: []string{evil, evil, evil, evil, evil, evil}, Listening: []string{evil, evil}, Guest: []string{evil},
		}},
	}}}
	var b strings.Builder
	_ = Status(&b, st, Look{})
	for _, r := range b.String() {
		if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0x200b) {
			t.Fatalf("%U in the output", r)
		}
	}
	if n := strings.Count(b.String(), "\n"); n != 5 {
		t.Errorf("%d lines", n)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 12*maxText+maxError {
			t.Errorf("line of %d bytes", len(line))
		}
	}
}

func TestStatusSaysWhatBecameOfASetup(t *testing.T) {
	at := time.Date(2026, 11, 29, 0, 10, 8, 0, time.Local)
	setup := func(s status.Setup) status.Setup {
		s.Domain, s.Source, s.RedefinedAt = "shop", "qemu:///system", at
		return s
	}
	for want, s := range map[string]status.Setup{
		"put back: add to shop: a channel; after the next start only: no free port": {Done: []string{"add to shop: a channel", "after the next start only: no free port"}},
		"nothing was missing":                            {},
		"nothing was put back: operation forbidden?[31m": {Error: "operation forbidden\x1b[31m"},
	} {
		var b strings.Builder
		if err := Status(&b, status.Status{Setups: []status.Setup{setup(s)}}, Look{}); err != nil {
			t.Fatal(err)
		}
		if line, _, _ := strings.Cut(b.String(), "\n"); line != "setup of shop: defined anew at 2026-11-29 00:10:08; "+want {
			t.Errorf("%s", line)
		}
	}
}
