package portwatch

import (
	"context"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watchNetworks has everything looked at when an interface or an address of this
// machine changes, until ctx ends: whether a socket can be reached depends on them.
// Where the kernel does not tell, it is seen when everything is looked at anyway.
func (w *Watcher) watchNetworks(ctx context.Context, src source) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1),
	})
	if err != nil {
		w.log.Debug("no events of networks", "err", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	lookAgain := func() {
		w.nudged.Store(true)
		src.wake()
	}
	lookAgain() // something may have changed before anybody was told
	for ctx.Err() == nil {
		// An error is a message too: that some did not fit.
		if _, err := conn.Receive(); err != nil && !sleep(ctx, maxPause) {
			return
		}
		lookAgain()
		if !sleep(ctx, networkPause) {
			return
		}
	}
}

// networkPause gathers the messages that one change of a network makes.
const networkPause = ephemeralDelay
