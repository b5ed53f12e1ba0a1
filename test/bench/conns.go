package main

import (
	"context"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

// connectionRate measures how many connections a second are made, used for one byte each way, and closed, by workers
// who each do so one after the other.
func connectionRate(o options, workers int) measure {
	key := connRate1
	if workers > 1 {
		key = connRate8
	}
	return func(ctx context.Context, t target) (sample, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		each := max(1, o.conns/workers)
		group, ctx := errgroup.WithContext(ctx)
		start := time.Now()
		for range workers {
			group.Go(func() error {
				for range each {
					if err := useOnce(ctx, t.echo()); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		return sample{key: float64(each*workers) / time.Since(start).Seconds()}, nil
	}
}

func useOnce(ctx context.Context, addr string) error {
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return exchange(conn, make([]byte, 1))
}

// dial connects to a service; Go sets TCP_NODELAY on it.
func dial(ctx context.Context, addr string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}
