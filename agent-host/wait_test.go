package hostagent_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// waiting is a Wait that goes on until the test takes its answer.
func waiting(t *testing.T, a *hostagent.Agent, vm, proto string, port uint16) <-chan status.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	answers := make(chan status.Answer, 1)
	go func() {
		answer, err := a.Wait(ctx, vm, proto, port)
		if err != nil {
			answer.Reason = err.Error()
		}
		answers <- answer
	}()
	return answers
}

func TestWaitReturnsWhenTheServiceTakesAConnectionAndNotBefore(t *testing.T) {
	t.Parallel()
	a, g, port := startAgentWith(t, hostagent.Config{Version: "test", Events: events.New(), Log: quiet}), newGuest(t), echo(t)
	answers := waiting(t, a, "dev", "tcp", port)
	add(t, a, g.vm("dev"))
	g.start()
	within(t, a, patience, "linked", func(vms []status.VM) bool { return vms[0].State == status.Connected })
	select {
	case early := <-answers:
		t.Fatalf("before the port is forwarded: %+v", early)
	default:
	}
	g.announce(port)
	answer := <-answers
	if !answer.Answers || answer.VM != "dev" || len(answer.Host) == 0 || answer.Host[0] != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String() {
		t.Errorf("%+v", answer)
	}
}

// The host's listener is open, and the guest announces what is not there: a service that refuses.
func TestWaitIsNotTakenInByTheHostsListener(t *testing.T) {
	t.Parallel()
	a, g, port := startAgentWith(t, hostagent.Config{Version: "test", Events: events.New(), Log: quiet}), newGuest(t), ownnet.FreePort(t)
	g.start()
	add(t, a, g.vm("dev"))
	g.announce(port)
	within(t, a, patience, "port open", active(0, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if answer, err := a.Wait(ctx, "", "tcp", port); err == nil || answer.Answers || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%+v, %v", answer, err)
	}
}

func TestWaitTellsWhyAPortDidNotAnswer(t *testing.T) {
	t.Parallel()
	rules, err := config.Parse("rum.toml", []byte("[[ports]]\nignore = true\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, g, port := startAgentWith(t, hostagent.Config{Version: "test", Events: events.New(), Rules: rules.Rules, Log: quiet}), newGuest(t), echo(t)
	g.announce(port)
	g.start()
	add(t, a, g.vm("dev"))
	within(t, a, patience, "decided", func(vms []status.VM) bool { return len(vms[0].Forwards) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := a.Wait(ctx, "dev", "tcp", port); err == nil || !strings.Contains(err.Error(), "rum.toml:1 keeps it in the guest") {
		t.Error(err)
	}
	for vm, want := range map[string]string{"nobody": "there is no such VM", "dev": "nothing is announced on 1/udp"} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := a.Wait(ctx, vm, "udp", 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", vm, err)
		}
	}
}
