package browser

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// openTimeout bounds how long a desktop may take to open a URL.
const openTimeout = 30 * time.Second

// Connect connects to the service of a forward without a trace among its connections.
type Connect func(ctx context.Context, e events.Event) (net.Conn, error)

// FollowRules opens ports whose rules have that done when they are first forwarded, until ctx ends.
// A rule does it once, whatever VMs do and wherever in its file it moves.
func FollowRules(ctx context.Context, history *events.History, connect Connect, log *slog.Logger) {
	done := make(map[string]bool)
	var wg sync.WaitGroup
	defer wg.Wait()
	_ = history.Follow(ctx, 0, func(all []events.Event) error {
		for _, e := range all {
			if e.Open == "" || e.Kind != events.Forwarding && e.Kind != events.Claimed || done[e.Open] {
				continue
			}
			done[e.Open] = true
			wg.Go(func() { // a service that is silent keeps no other waiting
				log := log.With("vm", e.VM, "port", e.Port, "rule", e.Rule)
				if err := openForward(ctx, e, connect); err != nil {
					log.Warn("no browser is opened", "error", err)
				} else {
					log.Info("a browser is opened")
				}
			})
		}
		return nil
	})
}

func openForward(ctx context.Context, e events.Event, connect Connect) error {
	if err := Display(); err != nil {
		return err
	}
	f := status.Forward{Proto: e.Proto, Port: e.Port, Listening: e.Host}
	at, ok := Find(status.Status{VMs: []status.VM{{Forwards: []status.Forward{f}}}}, e.Port)
	if !ok {
		return errors.New("it has no address here")
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	url := URL(ctx, at.Addr, func(ctx context.Context) (net.Conn, error) { return connect(ctx, e) })
	return Open(ctx, url, io.Discard)
}
