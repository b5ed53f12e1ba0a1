package guestagent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
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
	events.Go(func() { networkEvents(ctx, networks, log) })
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

// networkEvents puts a token in a channel once an address or a route of this machine has
// changed, until ctx ends. Where the kernel does not tell, there are none.
func networkEvents(ctx context.Context, events chan<- struct{}, log *slog.Logger) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1),
	})
	if err != nil {
		log.Debug("no events of networks", "err", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for {
		// An error is an event too: that some did not fit.
		_, err := conn.Receive()
		select {
		case events <- struct{}{}:
		default:
		}
		pause := time.Duration(0)
		if err != nil {
			pause = hostsPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
