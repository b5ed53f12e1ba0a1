package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

// idleMemory measures what a connection that waits costs a relay: the growth of its processes' memory over count
// connections that each carried one byte both ways. The relay should be fresh, so that no memory of earlier work hides it.
func idleMemory(count int) measure {
	return func(ctx context.Context, t target) (sample, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		before, err := memoryKiB(t.pids)
		if err != nil {
			return nil, err
		}
		conns := make([]*net.TCPConn, count)
		defer func() {
			for _, c := range conns {
				if c != nil {
					c.Close()
				}
			}
		}()
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(16)
		for i := range conns {
			group.Go(func() (err error) {
				conns[i], err = dial(groupCtx, t.echo())
				if err == nil {
					err = exchangeSoon(conns[i])
				}
				if err != nil {
					return fmt.Errorf("idle connection %d of %d: %w", i+1, count, err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(idleSettle):
		}
		after, err := memoryKiB(t.pids)
		if err != nil {
			return nil, err
		}
		// They must have been held, not dropped, for the number to mean anything.
		for i := 0; i < count; i += max(1, count/100) {
			if err := exchangeSoon(conns[i]); err != nil {
				return nil, fmt.Errorf("connection %d did not survive being idle: %w", i+1, err)
			}
		}
		return sample{idleKiB: (after - before) / float64(count), idleCount: float64(count)}, nil
	}
}

func exchangeSoon(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return exchange(conn, make([]byte, 1))
}

// idleSettle lets a relay do what it does once a connection has gone quiet.
const idleSettle = 2 * time.Second
