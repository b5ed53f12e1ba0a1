package hostagent_test

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// wantLink waits until the link is the step that fails, in those words, and for the remedy.
func wantLink(t *testing.T, a *hostagent.Agent, vm, words, remedy string) {
	t.Helper()
	var all []status.Explanation
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if all = a.Explain(vm, "tcp", 8080); len(all) == 1 && !all[0].Works && all[0].Remedy == remedy {
			for _, s := range all[0].Steps {
				if s.Name == status.StepLink && !s.OK && strings.Contains(s.Text, words) {
					return
				}
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", all)
		}
	}
}

func TestExplainTellsThatTheGuestAgentIsTooOld(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	add(t, a, hostagent.VM{Name: "dev", Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: oldGuest(t)}})
	wantLink(t, a, "dev", "the guest agent is older", "replace the guest agent with: rum-host-agent install dev")
}

func TestExplainKnowsADomainThatIsOff(t *testing.T) {
	a := newAgent()
	discover(t, a, libvirt.Snapshot{Domains: []libvirt.Domain{{Name: "dev", UUID: "1", State: libvirt.Off}}})
	wantLink(t, a, "dev", "dev is off", "start it with: virsh start dev")
	if all := a.Explain("other", "tcp", 8080); len(all) != 0 {
		t.Errorf("of a VM that nobody knows: %+v", all)
	}
}

func TestExplainTellsThatADomainHasNoDevice(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	add(t, a, hostagent.VM{Name: "none", Problem: "the domain has neither a vsock device nor a rum.agent.0 channel"})
	wantLink(t, a, "none", "neither a vsock device", "give the domain a device with: rum-host-agent setup none")
}

func TestExplainTellsHowAPortThatWorksGetsHere(t *testing.T) {
	t.Parallel()
	a, g, port := startAgentWith(t, hostagent.Config{Version: "test", Events: events.New(), Log: quiet}), newGuest(t), echo(t)
	g.announce(port)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "port open", active(0, 1))
	all := a.Explain("", "tcp", port)
	if len(all) != 1 || !all[0].Works || all[0].Remedy != "" || all[0].VM != "dev" {
		t.Fatalf("%+v", all)
	}
	var names []string
	for _, s := range all[0].Steps {
		names = append(names, s.Name)
		if !s.OK || s.Text == "" {
			t.Errorf("%+v", s)
		}
	}
	if got := strings.Join(names, ", "); got != "listener, announced, rule, host address, link, last error" {
		t.Error(got)
	}
}

func TestExplainKnowsTheHostPortOfARuleWhileNothingListens(t *testing.T) {
	t.Parallel()
	const file = "[[ports]]\nguest = 80\nhost = 8080\nvm = \"dev\"\n[[ports]]\nguest = 81\nignore = true\n" +
		"[[ports]]\nguest = 81\nhost = 8081\n[[forward]]\nguest = \"4000-4009\"\nguest_ip = \"loopback\"\nhost = \"14000-14009\"\n"
	rules, err := config.Parse("rum.toml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	a := startAgentWith(t, hostagent.Config{Version: "test", Events: events.New(), Rules: rules.Rules, Log: quiet})
	for _, name := range []string{"dev", "other"} {
		g := newGuest(t)
		g.start()
		add(t, a, g.vm(name))
	}
	within(t, a, patience, "linked", func(vms []status.VM) bool {
		return vms[0].State == status.Connected && vms[1].State == status.Connected
	})
	if _, err := a.AddForward("dev", "8083:83", "tcp", 0); err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]string{
		8080:  "dev 80 rum.toml:1 puts 80/tcp on port 8080 of this host; nothing is announced on 80/tcp",
		8083:  "dev 83 forward add at .* puts 83/tcp on port 8083 of this host; nothing is announced on 83/tcp",
		14003: "dev 4003 rum.toml:11 puts 4003/tcp on port 14003 of this host; nothing is announced on 4003/tcp",
		// A rule that never decides puts nothing anywhere.
		8081: "dev 8081 nothing is announced on 8081/tcp",
	} {
		all := a.Explain("", "tcp", port)
		if len(all) == 0 || len(all[0].Steps) == 0 {
			t.Fatalf("%d: %+v", port, all)
		}
		e := all[0]
		if got := fmt.Sprint(e.VM, " ", e.Port, " ", e.Steps[0].Text); !regexp.MustCompile("^"+want).MatchString(got) || !strings.HasPrefix(e.Remedy, "start the service in the guest") {
			t.Errorf("%d: %s; %s", port, got, e.Remedy)
		}
		// A VM of which nothing is said is not in between.
		if port == 8080 && len(all) != 1 {
			t.Errorf("%+v", all)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := a.Wait(ctx, "", "tcp", 8080); err == nil || !strings.HasPrefix(err.Error(), "rum.toml:1 puts 80/tcp on port 8080 of this host; nothing is announced on 80/tcp") {
		t.Error(err)
	}
}

func TestAPortOfTheOtherProtocolIsPointedTo(t *testing.T) {
	t.Parallel()
	a, g, port := startAgentWith(t, hostagent.Config{Version: "test", Events: events.New(), Log: quiet}), newGuest(t), ownnet.FreePort(t)
	g.mu.Lock()
	g.now.Generation++
	g.now.Listeners = []portlist.Listener{{Proto: "udp", Addr: netip.AddrPortFrom(guestIP, port)}}
	g.mu.Unlock()
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "port open", active(0, 1))
	hint := fmt.Sprintf("%d/udp is there: add --udp", port)
	want := fmt.Sprintf("nothing is announced on %d/tcp; %s", port, hint)
	if all := a.Explain("", "tcp", port); len(all) != 1 || all[0].Works || all[0].Steps[0].Text != want || all[0].Remedy != hint {
		t.Errorf("%+v", all)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := a.Wait(ctx, "", "tcp", port); err == nil || err.Error() != want {
		t.Error(err)
	}
	if _, err := a.Release("", "tcp", port); err == nil || !strings.HasSuffix(err.Error(), "or wants it; "+hint) {
		t.Error(err)
	}
}

// While the link is gone the last that was heard of a listener is no news.
func TestExplainDoesNotSayThatAServiceListensWhileTheGuestAgentIsAway(t *testing.T) {
	t.Parallel()
	a, g, port := startAgentWith(t, hostagent.Config{Version: "test", Events: events.New(), Log: quiet}), newGuest(t), echo(t)
	g.announce(port)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "port open", active(0, 1))
	g.stop()
	within(t, a, patience, "down", func(vms []status.VM) bool { return vms[0].State != status.Connected })
	want := fmt.Sprintf("a program listened on 127.0.0.2:%d when the guest agent last answered", port)
	if all := a.Explain("", "tcp", port); len(all) != 1 || all[0].Works || all[0].Steps[0].Text != want {
		t.Errorf("%+v, want %s", all, want)
	}
}
