package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// bulkBlock is how much is written and read at a time, as programs do that copy.
const bulkBlock = 64 << 10

// bulk measures throughput with ends of this program's own, which can do without a relay too: iperf3 knows no AF_VSOCK.
func bulk(o options, streams int, reverse bool) measure {
	rate, _ := transferMetrics(streams, reverse)
	return func(ctx context.Context, t target) (sample, error) {
		until := time.Now().Add(time.Duration(o.seconds) * time.Second)
		var group errgroup.Group
		bytes, took := make([]uint64, streams), make([]time.Duration, streams)
		for i := range streams {
			group.Go(func() (err error) {
				began := time.Now()
				bytes[i], err = moveBulk(t, reverse, func(uint64) bool { return time.Now().Before(until) && ctx.Err() == nil })
				took[i] = time.Since(began)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return nil, fmt.Errorf("bulk: %w", err)
		}
		s := sample{}
		for i := range streams {
			s[rate] += float64(bytes[i]) * 8 / 1e9 / took[i].Seconds()
		}
		return s, nil
	}
}

// moveBulk moves bytes over a connection of its own for as long as more, asked with how many there were, wants it. It
// returns how many have arrived.
func moveBulk(t target, reverse bool, more func(uint64) bool) (moved uint64, err error) {
	addr := t.sink()
	if reverse {
		addr = t.source()
	}
	conn, err := dialBlocking(addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	block := make([]byte, bulkBlock)
	for more(moved) {
		var n int
		if reverse {
			n, err = conn.Read(block)
		} else {
			n, err = conn.Write(block)
		}
		if moved += uint64(n); err != nil {
			return moved, err
		}
	}
	if reverse {
		return moved, nil
	}
	if err := unix.Shutdown(int(conn), unix.SHUT_WR); err != nil {
		return moved, err
	}
	count := make([]byte, 8)
	if _, err := io.ReadFull(conn, count); err != nil {
		return moved, fmt.Errorf("ask how much has arrived: %w", err)
	}
	return binary.NativeEndian.Uint64(count), nil
}
