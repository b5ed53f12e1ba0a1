package host

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/netevents"
)

// A look at the host's addresses costs one attempt for each of them, however many ports
// are or want to be there.
const (
	// addressesEvery is the time between two looks while addresses change, while something
	// is in the way at one that has come back, and where the kernel does not tell of changes.
	addressesEvery = time.Second
	// addressesRarely is that time otherwise, for what the kernel has not told.
	addressesRarely = time.Minute
)

// FollowAddresses looks when the host's addresses may have changed, until a look says that
// there is no need for more, or ctx ends. A look that was blocked is followed by another soon.
func FollowAddresses(ctx context.Context, log *slog.Logger, look func() (more, blocked bool)) {
	ctx, cancel := context.WithCancel(ctx)
	changed, told := make(chan struct{}, 1), make(chan struct{})
	defer func() { cancel(); <-told }()
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	var untold atomic.Bool
	go func() {
		defer close(told)
		if err := netevents.FollowNetworks(ctx, addressesEvery, tell); err != nil {
			log.Debug("no events of networks", "error", err)
			untold.Store(true)
			tell()
		}
	}()
	next := time.NewTimer(addressesRarely)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-next.C:
		}
		more, blocked := look()
		if !more {
			return
		}
		wait := addressesRarely
		if blocked || untold.Load() {
			wait = addressesEvery
		}
		next.Reset(wait)
	}
}
