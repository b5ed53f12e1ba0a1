package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// stalledReader measures how much longer a round trip takes while another connection's client has stopped reading and
// its server has filled every buffer on the way.
func stalledReader(o options) measure {
	return func(ctx context.Context, t target) (sample, error) {
		before, err := timeRoundTrips(ctx, t, placement{0, 1}, o.trips)
		if err != nil {
			return nil, err
		}
		conn, err := dial(ctx, t.source())
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		if err := waitFull(ctx, conn); err != nil {
			return nil, err
		}
		during, err := timeRoundTrips(ctx, t, placement{0, 1}, o.trips)
		if err != nil {
			return nil, fmt.Errorf("beside a stalled reader: %w", err)
		}
		return sample{stall: micros(percentile(during, 50)) / micros(percentile(before, 50))}, nil
	}
}

// fullAfter is how long the receive buffer must not have grown to be taken for full; buffers behind it fill meanwhile.
const fullAfter = 500 * time.Millisecond

// waitFull waits until data has arrived on conn and no more does.
func waitFull(ctx context.Context, conn *net.TCPConn) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var last int
	since := time.Now()
	for {
		queued, err := receiveQueue(conn)
		if err != nil {
			return err
		}
		if queued != last {
			last, since = queued, time.Now()
		}
		if last > 0 && time.Since(since) > fullAfter {
			return nil
		}
		select {
		case <-ctx.Done():
			if last == 0 {
				return errors.New("a connection to a server that sends without end got nothing")
			}
			return fmt.Errorf("a receive buffer that nobody reads still grew: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// receiveQueue returns the bytes that wait in the kernel for conn's reader.
func receiveQueue(conn *net.TCPConn) (n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	return n, errors.Join(controlErr, err)
}
