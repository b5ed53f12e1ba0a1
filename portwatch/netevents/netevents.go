// Package netevents passes on that the kernel has told of a change, by netlink. What it
// says is not read: whoever is told looks for himself.
package netevents

import (
	"context"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// afterError is the pause after a message that could not be received.
const afterError = time.Second

// FollowNetworks is [Follow] for interfaces and addresses of this machine that come, change or go.
func FollowNetworks(ctx context.Context, pause time.Duration, told func()) error {
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	return Follow(ctx, unix.NETLINK_ROUTE, groups, pause, told)
}

// Sleep waits, and reports false if ctx ends before.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Follow calls told at once, because something may have changed before, and after the
// messages of some multicast groups (a bit each, of a family of NETLINK_*), until ctx ends.
// There is a pause between two calls, which gathers the messages of one change. The error
// says why the kernel does not tell.
func Follow(ctx context.Context, family int, groups uint32, pause time.Duration, told func()) error {
	conn, err := netlink.Dial(family, &netlink.Config{Groups: groups})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	told()
	for {
		// An error is a message too: that some did not fit.
		_, err := conn.Receive()
		if ctx.Err() != nil {
			return nil
		}
		told()
		rest := pause
		if err != nil {
			rest = max(rest, afterError)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
	}
}
