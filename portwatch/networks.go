package portwatch

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/portwatch/netevents"
)

// watchNetworks has everything looked at when an interface or an address of this
// machine changes, until ctx ends: whether a socket can be reached depends on them.
// Where the kernel does not tell, it is seen when everything is looked at anyway.
func (w *Watcher) watchNetworks(ctx context.Context, src source) {
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	err := netevents.Follow(ctx, unix.NETLINK_ROUTE, groups, networkPause, func() {
		w.nudged.Store(true)
		src.Wake()
	})
	if err != nil {
		w.log.Debug("no events of networks", "err", err)
	}
}

// networkPause gathers the messages that one change of a network makes.
const networkPause = ephemeralDelay
