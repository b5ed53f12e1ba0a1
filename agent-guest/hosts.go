package guestagent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/portwatch/netevents"
)

// HostName is what the host is called in its guests.
const HostName = "host.rum.internal"

const (
	// hostsEvery is the time between two looks at the file while nothing else happens:
	// cloud-init writes it anew at some boots, and later than the agent does.
	hostsEvery = 30 * time.Second
	// hostsPause gathers the events of one change of a network.
	hostsPause = 200 * time.Millisecond
)

// keepHosts has the host's name in a file like /etc/hosts, and its address there follow
// the networks of this machine, until ctx ends.
func keepHosts(ctx context.Context, path string, log *slog.Logger) {
	networks := make(chan struct{}, 1)
	var events sync.WaitGroup
	defer events.Wait()
	events.Go(func() {
		const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1)
		err := netevents.Follow(ctx, unix.NETLINK_ROUTE, groups, 0, func() {
			select {
			case networks <- struct{}{}:
			default:
			}
		})
		if err != nil {
			log.Debug("no events of networks", "err", err)
		}
	})
	complained := ""
	for {
		next := hostsEvery
		if ip := hostAddress(); ip.IsValid() {
			written, err := writeHosts(path, ip)
			switch {
			case errors.Is(err, errJustChanged):
				next = hostsPause
			case err != nil && err.Error() != complained:
				complained = err.Error()
				log.Warn("the host's name is not kept", "name", HostName, "err", err)
			case written:
				complained = ""
				log.Info("the host has a name", "name", HostName, "address", ip, "file", path)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		case <-networks:
			select {
			case <-ctx.Done():
				return
			case <-time.After(hostsPause):
			}
		}
	}
}
