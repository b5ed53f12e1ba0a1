package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// beside measures how much longer a round trip takes beside other connections to the same guest: one that carries bulk
// either way, and one over which 64-byte messages are sent as fast as they are taken.
func beside(o options) measure {
	loads := []struct {
		key   metric
		start func(target) (stop func(), err error)
	}{
		{besideForward, func(t target) (func(), error) { return sendWithoutEnd(t.sink(), 64<<10) }},
		{besideReverse, func(t target) (func(), error) { return receiveWithoutEnd(t.source()) }},
		{besideFlood, func(t target) (func(), error) { return sendWithoutEnd(t.sink(), messageBytes) }},
	}
	return func(ctx context.Context, t target) (sample, error) {
		s := make(sample)
		for _, load := range loads {
			alone, err := timeRoundTrips(ctx, t, placement{anywhere, anywhere}, o.trips)
			if err != nil {
				return nil, err
			}
			stop, err := load.start(t)
			if err != nil {
				return nil, err
			}
			time.Sleep(settle) // until every buffer on the way is as full as it gets
			loaded, err := timeRoundTrips(ctx, t, placement{anywhere, anywhere}, o.trips)
			stop()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", load.key, err)
			}
			s[load.key] = micros(percentile(loaded, 50)) / micros(percentile(alone, 50))
		}
		return s, nil
	}
}

// sendWithoutEnd sends blocks of size bytes to a service until it is stopped.
func sendWithoutEnd(addr string, size int) (stop func(), err error) {
	block := make([]byte, size)
	return withoutEnd(addr, func(conn io.ReadWriter) error {
		_, err := conn.Write(block)
		return err
	})
}

// receiveWithoutEnd reads what a service sends until it is stopped.
func receiveWithoutEnd(addr string) (stop func(), err error) {
	buf := make([]byte, 64<<10)
	return withoutEnd(addr, func(conn io.ReadWriter) error {
		_, err := conn.Read(buf)
		return err
	})
}

func withoutEnd(addr string, move func(io.ReadWriter) error) (stop func(), err error) {
	conn, err := dialBlocking(addr)
	if err != nil {
		return nil, err
	}
	var over sync.WaitGroup
	over.Go(func() {
		for move(conn) == nil {
		}
	})
	return func() {
		_ = unix.Shutdown(int(conn), unix.SHUT_RDWR) // who waits for it returns
		over.Wait()
		_ = conn.Close()
	}, nil
}
