package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/metrics"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// listenMetrics opens the listener for Prometheus; nil if there is to be none.
func (o *runOptions) listenMetrics(ctx context.Context) (net.Listener, error) {
	if o.metrics == "" {
		return nil, nil
	}
	l, err := metrics.Listen(ctx, o.metrics)
	if _, bad := errors.AsType[*net.AddrError](err); bad {
		return nil, output.Misuse(fmt.Errorf("--metrics %q: want [HOST]:PORT, such as :9100", o.metrics))
	}
	if err != nil {
		hint := "name an address of this host and a port that nobody has, as in: --metrics :9100"
		if errors.Is(err, unix.EADDRINUSE) {
			hint = "name another port, as in: --metrics :9101"
		}
		return nil, output.Advise(fmt.Errorf("--metrics %s: %w", o.metrics, err), hint)
	}
	return l, nil
}
