package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How much is moved, and how many round trips are made, while the kernel counts.
const (
	countedBytes = 64 << 20
	countedTrips = 500
)

// The numbers of enum virtio_vsock_op in linux/virtio_vsock.h.
const (
	opRW           = 5
	opCreditUpdate = 6
)

// fullPacket is a packet that counts as large: not much less than the 64 KiB that one can be
// (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE in linux/virtio_vsock.h).
const fullPacket = 60 << 10

// relayPrograms are the names of relays' threads, as the kernel has them.
var relayPrograms = []string{hostAgent, guestAgent, "socat"}

// kernelFigures has the kernel of this machine count what a relay makes it do for bulk either way and for round trips:
// figures that do not depend on how fast the machine is. It is for a guest on the same kernel.
func kernelFigures(ctx context.Context, t target) (sample, error) {
	s := make(sample)
	for _, way := range []struct {
		reverse                          bool
		packets, full, mid, low, credits metric
		calls, wakes                     metric
	}{
		{false, packetsForward, fullForward, midForward, lowForward, creditsForward, callsForward, wakesForward},
		{true, packetsReverse, fullReverse, midReverse, lowReverse, creditsReverse, callsReverse, wakesReverse},
	} {
		var moved uint64
		c, err := counted(ctx, func() (err error) {
			moved, err = moveBulk(t, way.reverse, func(n uint64) bool { return n < countedBytes && ctx.Err() == nil })
			return err
		})
		if err != nil {
			return nil, err
		}
		mb := float64(moved) / 1e6
		s[way.packets], s[way.credits] = c.packets/mb, c.credits/mb
		s[way.calls], s[way.wakes] = c.calls/mb, c.wakes/mb
		if c.bytes > 0 {
			s[way.full], s[way.mid], s[way.low] = c.full/c.bytes, c.mid/c.bytes, c.low/c.bytes
		}
	}
	conn, err := dialBlocking(t.reply())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	msg := make([]byte, messageBytes)
	msg[0] = anywhere
	if err := exchange(conn, msg); err != nil {
		return nil, err
	}
	c, err := counted(ctx, func() error {
		for range countedTrips {
			if err := exchange(conn, msg); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s[packetsTrip], s[creditsTrip] = c.packets/countedTrips, c.credits/countedTrips
	s[callsTrip], s[wakesTrip] = c.calls/countedTrips, c.wakes/countedTrips
	return s, nil
}

// counts is what the kernel has counted: packets with bytes, all bytes and those in packets of each class of size, credit
// updates, and system calls and wake-ups of relays.
type counts struct {
	packets, bytes, full, mid, low, credits, calls, wakes float64
}

const tracing = "/sys/kernel/tracing"

// tracepoints and the histograms that are kept of them (Documentation/trace/histogram.rst of the kernel).
var tracepoints = map[string]string{
	"vsock/virtio_transport_alloc_pkt": "hist:keys=op,len:size=8192",
	"raw_syscalls/sys_enter":           "hist:keys=common_pid.execname:size=4096",
	"sched/sched_wakeup":               "hist:keys=comm:size=4096",
}

// counted counts while f runs.
func counted(ctx context.Context, f func() error) (c counts, err error) {
	for event, trigger := range tracepoints {
		file := filepath.Join(tracing, "events", event, "trigger")
		if err := os.WriteFile(file, []byte(trigger), 0); err != nil {
			return c, fmt.Errorf("count %s: %w", event, err)
		}
		defer func() { err = errors.Join(err, os.WriteFile(file, []byte("!"+trigger), 0)) }()
	}
	if err := f(); err != nil {
		return c, err
	}
	select { // for credit that is told a little later
	case <-ctx.Done():
		return c, ctx.Err()
	case <-time.After(settle):
	}
	for event := range tracepoints {
		text, err := os.ReadFile(filepath.Join(tracing, "events", event, "hist"))
		if err != nil {
			return c, err
		}
		for line := range strings.Lines(string(text)) {
			c.take(event, line)
		}
	}
	return c, nil
}

var (
	packetLine  = regexp.MustCompile(`^\{ op: +(\d+), len: +(\d+) *\} hitcount: +(\d+)`)
	programLine = regexp.MustCompile(`^\{ (?:common_pid|comm): +(\S+).*\} hitcount: +(\d+)`)
)

// take takes in a line of a histogram.
func (c *counts) take(event, line string) {
	if event == "vsock/virtio_transport_alloc_pkt" {
		found := packetLine.FindStringSubmatch(line)
		if found == nil {
			return
		}
		op, length, hits := parseCount(found[1]), parseCount(found[2]), parseCount(found[3])
		switch {
		case op == opCreditUpdate:
			c.credits += hits
		case op == opRW:
			c.packets += hits
			c.bytes += hits * length
			switch {
			case length >= fullPacket:
				c.full += hits * length
			case length >= 16<<10:
				c.mid += hits * length
			default:
				c.low += hits * length
			}
		}
		return
	}
	found := programLine.FindStringSubmatch(line)
	if found == nil || !slices.Contains(relayPrograms, found[1]) {
		return
	}
	if event == "raw_syscalls/sys_enter" {
		c.calls += parseCount(found[2])
	} else {
		c.wakes += parseCount(found[2])
	}
}

func parseCount(digits string) float64 {
	n, _ := strconv.ParseFloat(digits, 64) // the pattern let digits through only
	return n
}
