package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// tripsPerSecond is a connection that somebody types into, or an editor's.
const tripsPerSecond = 10

// slowTrips measures what wake-ups a connection costs that carries little: the context switches of the threads of that
// process of the relay which has most.
func slowTrips(o options) measure {
	return func(ctx context.Context, t target) (sample, error) {
		conn, err := dialBlocking(t.echo())
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		every := time.NewTicker(time.Second / tripsPerSecond)
		defer every.Stop()
		trips := func(count int) error {
			for range count {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-every.C:
				}
				if err := exchange(conn, make([]byte, messageBytes)); err != nil {
					return err
				}
			}
			return nil
		}
		if err := trips(tripsPerSecond); err != nil { // after which what a new connection costs is over
			return nil, err
		}
		before, err := switches(t.pids)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if err := trips(o.seconds * tripsPerSecond); err != nil {
			return nil, err
		}
		took := time.Since(start).Seconds()
		after, err := switches(t.pids)
		if err != nil {
			return nil, err
		}
		var most float64
		for pid, n := range after {
			most = max(most, (n-before[pid])/took)
		}
		return sample{slowSwitches: most}, nil
	}
}

// switches is how often threads of each process of the family have been switched from, of their own accord or not. Those of
// a thread that has ended are not in it.
func switches(pids []int) (map[int]float64, error) {
	members, _, err := family(pids)
	if err != nil {
		return nil, err
	}
	sum := make(map[int]float64)
	for _, p := range members {
		threads, err := procfs.AllThreads(p.PID)
		if err != nil {
			return nil, fmt.Errorf("list the threads of %d: %w", p.PID, err)
		}
		for _, thread := range threads {
			if status, err := thread.NewStatus(); err == nil { // else it ended since
				sum[p.PID] += float64(status.VoluntaryCtxtSwitches + status.NonVoluntaryCtxtSwitches)
			}
		}
	}
	return sum, nil
}
