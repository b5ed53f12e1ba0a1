package portwatch

import (
	"context"

	"github.com/rum-vm/rum-agent/portwatch/netevents"
)

// watchNetworks has everything looked at when an interface or an address of this
// machine changes, until ctx ends: whether a socket can be reached depends on them.
// Where the kernel does not tell, it is seen when everything is looked at anyway.
func (w *Watcher) watchNetworks(ctx context.Context, src source) {
	err := netevents.FollowNetworks(ctx, networkPause, func() {
		w.nudged.Store(true)
		src.Wake()
	})
	if err != nil {
		w.log.Debug("no events of networks", "err", err)
	}
}

// networkPause gathers the messages that one change of a network makes.
const networkPause = ephemeralDelay
