package browser

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// openTimeout bounds how long a desktop may take to open a URL.
const openTimeout = 30 * time.Second

// FollowRules opens ports whose rules have that done when they are first forwarded, until ctx ends.
// A rule does it once for a VM, whatever that does.
func FollowRules(ctx context.Context, history *events.History, log *slog.Logger) {
	type rule struct{ vm, name string }
	done := make(map[rule]bool)
	_ = history.Follow(ctx, 0, func(all []events.Event) error {
		for _, e := range all {
			r := rule{e.VM, e.Rule}
			if !e.Open || e.Kind != events.Forwarding && e.Kind != events.Claimed || done[r] {
				continue
			}
			done[r] = true
			log := log.With("vm", e.VM, "port", e.Port, "rule", e.Rule)
			if err := openForward(ctx, e); err != nil {
				log.Warn("no browser is opened", "error", err)
			} else {
				log.Info("a browser is opened")
			}
		}
		return nil
	})
}

func openForward(ctx context.Context, e events.Event) error {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return errors.New("this agent has no display: DISPLAY and WAYLAND_DISPLAY are not set")
	}
	f := status.Forward{Proto: e.Proto, Port: e.Port, Listening: e.Host}
	addr, ok := Address(status.Status{VMs: []status.VM{{Forwards: []status.Forward{f}}}}, e.Port)
	if !ok {
		return errors.New("it has no address here")
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return Open(ctx, URL(ctx, addr), io.Discard)
}
