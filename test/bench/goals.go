package main

import (
	"errors"
	"fmt"
)

// goal is a ratio this project wants to hold on a machine with two cores. One that is missed is reported,
// and no more but for those that must be reached.
type goal struct {
	text   string
	limit  float64
	atMost bool
	must   bool // the program fails where it is missed: it does not depend on how fast the machine is
	find   func(*results) (float64, bool)
}

var goals = append([]goal{
	{text: "raw, 1 stream forward / loopback", limit: 0.55, find: overLoopback("raw", forward1)},
	{text: "raw, 1 stream reverse / loopback", limit: 0.55, find: overLoopback("raw", reverse1)},
	{text: "raw, 1 stream forward / ssh -L", limit: 4, find: over("raw", "ssh", forward1)},
	{text: "raw, 1 stream reverse / ssh -L", limit: 4, find: over("raw", "ssh", reverse1)},
	{text: "raw, 1 stream forward / socat twice", limit: 1, find: over("raw", "socat", forward1)},
	{text: "raw, 1 stream reverse / socat twice", limit: 1, find: over("raw", "socat", reverse1)},
	{text: "raw, round trip p50 / loopback", limit: 2.8, atMost: true, find: overLoopback("raw", rttP50)},
	{text: "raw, round trip p50 / loopback, two cpus", limit: 2.8, atMost: true, find: overLoopback("raw", rttTwoCPUs)},
	{text: "raw, round trip p50 / C, one cpu", limit: 1.15, atMost: true, find: over("raw", "c", rttOneCPU)},
	{text: "raw, round trip p50 / C, two cpus", limit: 1.15, atMost: true, find: over("raw", "c", rttTwoCPUs)},
	{text: "raw, connections per second / loopback", limit: 0.38, find: overLoopback("raw", connRate1)},
	{text: "raw, connections per second / ssh -L", limit: 1, find: over("raw", "ssh", connRate1)},
	{text: "raw, KiB per idle connection", limit: 24, atMost: true, find: plain("raw", idleKiB)},
	{text: "raw, round trip beside a stalled reader / before", limit: 2, atMost: true, find: plain("raw", stall)},
	{text: "raw, context switches per second at ten round trips", limit: 60, atMost: true, find: plain("raw", slowSwitches)},
	{text: "raw, requests per second by name / forward", limit: 0.5, find: plain("raw", byNameRatio)},
	{text: "mux, 1 stream forward / loopback", limit: 0.33, find: overLoopback("mux", forward1)},
	{text: "mux, 1 stream reverse / loopback", limit: 0.33, find: overLoopback("mux", reverse1)},
	{text: "mux, 1 stream forward / other build", limit: 1.15, find: over("mux", "mux-old", forward1)},
	{text: "mux, 1 stream reverse / other build", limit: 1.15, find: over("mux", "mux-old", reverse1)},
	{text: "mux, round trip beside bulk forward / alone", limit: 3, atMost: true, find: plain("mux", besideForward)},
	{text: "mux, round trip beside bulk reverse / alone", limit: 3, atMost: true, find: plain("mux", besideReverse)},
	{text: "mux, round trip beside small messages / alone", limit: 3, atMost: true, find: plain("mux", besideFlood)},
	{text: "mux, round trip beside a stalled reader / before", limit: 2, atMost: true, find: plain("mux", stall)},
	{text: "remote, 1 stream forward / ssh -L", limit: 0.8, find: over("remote", "ssh", forward1)},
	{text: "remote, 1 stream reverse / ssh -L", limit: 0.8, find: over("remote", "ssh", reverse1)},
	{text: "remote, round trip p50 / ssh -L", limit: 1.5, atMost: true, find: over("remote", "ssh", rttP50)},
	{text: "remote, connections per second / ssh -L", limit: 2, find: over("remote", "ssh", connRate1)},
	{text: "remote, connections per second, 8 workers / ssh -L", limit: 2, find: over("remote", "ssh", connRate8)},
	{text: "remote, 4 streams forward / 1 stream", limit: 1, find: within("remote", forward4, forward1)},
	{text: "remote, 4 streams reverse / 1 stream", limit: 1, find: within("remote", reverse4, reverse1)},
	{text: "remote at 1 ms, 1 stream forward / ssh -L", limit: 0.8, find: over("remote-lan", "ssh-lan", forward1)},
	{text: "remote at 1 ms, 1 stream reverse / ssh -L", limit: 0.8, find: over("remote-lan", "ssh-lan", reverse1)},
	{text: "remote at 1 ms, round trip p50 / ssh -L", limit: 1.5, atMost: true, find: over("remote-lan", "ssh-lan", rttP50)},
	{text: "remote at 1 ms, connections per second / ssh -L", limit: 2, find: over("remote-lan", "ssh-lan", connRate1)},
	{text: "remote at 1 ms, connections per second, 8 workers / ssh -L", limit: 2, find: over("remote-lan", "ssh-lan", connRate8)},
}, udpGoals...)

var udpGoals = []goal{
	{text: "raw, UDP round trip p50 / TCP", limit: 1.25, atMost: true, find: plain("raw", udpOverTCP)},
	{text: "raw, datagrams that arrive, of 100,000 a second / loopback", limit: 0.999, find: overLoopback("raw", floodArrived)},
	{text: "raw, questions answered, of 10,000 a second / loopback", limit: 1, find: overLoopback("raw", queriesAnswered)},
	{text: "raw, HTTP/3 / loopback", limit: 0.5, find: overLoopback("raw", http3Rate)},
}

// vsockGoals are for the relay over AF_VSOCK. Where processors are the limit, its share of loopback is bounded by
// 1/(1/V + 2/L), V being that of the bare ends and L loopback's own.
var vsockGoals = []goal{
	{text: "raw, 1 stream forward / what the bare ends bound", limit: 0.85, find: overBound("raw", forward1)},
	{text: "raw, 1 stream reverse / what the bare ends bound", limit: 0.85, find: overBound("raw", reverse1)},
	{text: "raw, 1 stream forward / socat twice", limit: 1.1, find: over("raw", "socat", forward1)},
	{text: "raw, 1 stream reverse / socat twice", limit: 1.1, find: over("raw", "socat", reverse1)},
	{text: "raw, round trip beside bulk forward / alone", limit: 4, atMost: true, find: plain("raw", besideForward)},
	{text: "raw, round trip beside bulk reverse / alone", limit: 4, atMost: true, find: plain("raw", besideReverse)},
	{text: "raw, share of bytes forward in packets of 60 KiB or more", limit: 0.9, must: true, find: plain("raw", fullForward)},
	{text: "raw, share of bytes reverse in packets of 60 KiB or more", limit: 0.9, must: true, find: plain("raw", fullReverse)},
}

func overBound(relay string, m metric) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) {
		value, ok := r.ratio(relay, m)
		bare, okBare := r.ratio("ends", m)
		if !ok || !okBare || bare == 0 {
			return 0, false
		}
		return value * (1/bare + 2), true
	}
}

// reached is false for a goal whose number was not measured.
func (g goal) reached(r *results) (value float64, ok, measured bool) {
	value, measured = g.find(r)
	ok = measured && (value >= g.limit && !g.atMost || value <= g.limit && g.atMost)
	return value, ok, measured
}

// missed names the goals that must be reached and are not.
func (r *results) missed() error {
	var err error
	for _, g := range r.goals {
		if value, ok, measured := g.reached(r); g.must && measured && !ok {
			err = errors.Join(err, fmt.Errorf("%s: %s", g.text, number(value, true)))
		}
	}
	return err
}

func overLoopback(relay string, m metric) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) { return r.ratio(relay, m) }
}

func plain(relay string, m metric) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) { return r.value(relay, m) }
}

// within compares two numbers of one relay.
func within(relay string, m, with metric) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) {
		a, okA := r.value(relay, m)
		b, okB := r.value(relay, with)
		if !okA || !okB || b == 0 {
			return 0, false
		}
		return a / b, true
	}
}

// over compares two relays by their ratios to loopback, because they were not measured at the same time.
func over(relay, other string, m metric) func(*results) (float64, bool) {
	return func(r *results) (float64, bool) {
		a, okA := r.ratio(relay, m)
		b, okB := r.ratio(other, m)
		if !okA || !okB || b == 0 {
			return 0, false
		}
		return a / b, true
	}
}
