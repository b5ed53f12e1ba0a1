package hostagent_test

import (
	"strings"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/status"
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
