package forward_test

import (
	"context"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// A guest tells a port first, and whose it is in a moment.
func TestAForwardIsToldOfWithTheProcessThatTheGuestNamesThen(t *testing.T) {
	history := events.New()
	vm := newTable(t, forward.Config{Events: history}).Add("dev")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	named := false
	for !named && ctx.Err() == nil { // this machine may take longer for once
		all := listeners(ownnet.FreePort(t), "127.0.0.1")
		before := history.Now()
		vm.Announce(all)
		all = listeners(all[0].Addr.Port(), "127.0.0.1")
		all[0].Process = "web[1]"
		vm.Announce(all)
		once, stop := context.WithCancel(ctx)
		_ = history.Follow(once, before, func(told []events.Event) error {
			for _, e := range told {
				if e.Kind == events.Forwarding && e.Port == all[0].Addr.Port() {
					named = e.Process == "web[1]"
					stop()
				}
			}
			return nil
		})
		stop()
	}
	if !named {
		t.Error("what is told of a forward lacks the process that is named in the next announcement")
	}
}
