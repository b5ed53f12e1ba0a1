package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// messageBytes is the size of a round trip's message, either way.
const messageBytes = 64

// rttConns is over how many connections, one after the other, round trips are spread: where the scheduler puts the
// processes decides much of a round trip's time, and tends to stay for the life of a connection.
const rttConns = 10

// roundTrips measures latency on established connections.
func roundTrips(o options) measure {
	return func(ctx context.Context, t target) (sample, error) {
		times, err := timeRoundTrips(ctx, t.echo(), o.trips)
		if err != nil {
			return nil, err
		}
		return sample{rttP50: micros(percentile(times, 50)), rttP99: micros(percentile(times, 99))}, nil
	}
}

// timeRoundTrips makes at least count round trips and returns their times, shortest first.
func timeRoundTrips(ctx context.Context, addr string, count int) ([]time.Duration, error) {
	var times []time.Duration
	for range rttConns {
		some, err := timeConnection(ctx, addr, (count+rttConns-1)/rttConns)
		if err != nil {
			return nil, err
		}
		times = append(times, some...)
	}
	slices.Sort(times)
	return times, nil
}

// timeConnection makes count round trips on one connection, after some that do not count.
func timeConnection(ctx context.Context, addr string, count int) ([]time.Duration, error) {
	conn, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	msg := make([]byte, messageBytes)
	for range 20 {
		if err := exchange(conn, msg); err != nil {
			return nil, err
		}
	}
	times := make([]time.Duration, count)
	for i := range times {
		start := time.Now()
		if err := exchange(conn, msg); err != nil {
			return nil, err
		}
		times[i] = time.Since(start)
	}
	return times, nil
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

// exchange sends msg to an echo service and waits for all of it.
func exchange(conn net.Conn, msg []byte) error {
	if _, err := conn.Write(msg); err != nil {
		return fmt.Errorf("round trip: %w", err)
	}
	if _, err := io.ReadFull(conn, msg); err != nil {
		return fmt.Errorf("round trip: %w", err)
	}
	return nil
}

// percentile of sorted times, by nearest rank.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
