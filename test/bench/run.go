package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// measure takes one sample of a target.
type measure func(context.Context, target) (sample, error)

// sample holds what one measurement found.
type sample map[metric]float64

// Loopback's servers run here, the relays' at the guest; neither set is in the range of ephemeral ports.
var (
	loopbackPorts = ports{iperf: 6201, echo: 6202, source: 6203, reply: 6204, sink: 6207, http3: 6206}
	guestPorts    = ports{iperf: 5201, echo: 5202, source: 5203, reply: 5204, sink: 5207, http3: 5206}
)

// measureInSandbox is the program's role inside the sandbox: measure, print, and fail if something was not measured.
func measureInSandbox(ctx context.Context, args []string) error {
	o, err := parseOptions(args, os.Stderr)
	if err != nil {
		return err
	}
	var jsonFile io.Writer = io.Discard
	if o.json != "" { // before the sandbox hides the path
		f, err := os.Create(o.json)
		if err != nil {
			return err
		}
		defer f.Close()
		jsonFile = f
	}
	if err := furnishSandbox(); err != nil {
		return err
	}
	guest, closeGuest, err := guestNamespace()
	if err != nil {
		return err
	}
	defer closeGuest()
	if o.cid == loopbackCID {
		far, err := startLoopbackGuest(o, guest)
		if err != nil {
			return err
		}
		defer far.stop()
	}
	b, err := newBench(ctx, o, guest)
	if err != nil {
		return err
	}
	defer b.close()
	b.run(ctx)
	if ctx.Err() != nil {
		return nil // the outer program says so
	}
	printTables(os.Stdout, b.results)
	encoder := json.NewEncoder(jsonFile)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(b.results); err != nil {
		return fmt.Errorf("write %s: %w", o.json, err)
	}
	if n := len(b.results.Failures); n > 0 {
		return fmt.Errorf("%d measurements failed", n)
	}
	return b.results.missed()
}

// bench measures relays to a guest against loopback.
type bench struct {
	options  options
	setting  setting
	local    *servers
	remote   *servers // nil where the guest has its own
	web      *process // nil where the guest is no namespace here
	loopback target
	results  *results
}

func newBench(ctx context.Context, o options, guest netns) (*bench, error) {
	b := &bench{
		options:  o,
		setting:  setting{to: guest, ports: guestPorts, bin: o.bin, cid: o.cid, keys: o.keys},
		loopback: target{name: "loopback", host: "127.0.0.1", ports: loopbackPorts},
		results:  newResults(o),
	}
	var err error
	if b.local, err = startServers(netns{}, loopbackPorts); err != nil {
		return nil, err
	}
	if err = waitReady(ctx, b.loopback, []*process{b.local.iperf, b.local.echo}); err == nil && o.cid == 0 {
		if b.remote, err = startServers(guest, guestPorts); err == nil {
			b.web, err = startWeb(guest)
		}
	}
	if err == nil && o.cid == 0 {
		for s, in := range map[*servers]netns{b.local: {}, b.remote: guest} {
			if s.http3, err = startHTTP3(in, o.bin, s.ports); err != nil {
				break
			}
		}
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	for _, s := range []*servers{b.local, b.remote} {
		if s != nil {
			s.stop()
		}
	}
	if b.web != nil {
		b.web.stop()
	}
}

// paired are the measurements taken of loopback and then of the relay.
func paired(o options) []measure {
	if o.cid != 0 {
		return []measure{bulk(o, 1, false), bulk(o, 1, true), bulk(o, 4, false), bulk(o, 4, true), roundTrips(o), beside(o)}
	}
	return []measure{
		transfer(o, 1, false), transfer(o, 1, true), transfer(o, 4, false), transfer(o, 4, true), roundTrips(o), beside(o),
		connectionRate(o, 1), connectionRate(o, 8), stalledReader(o),
	}
}

func (b *bench) run(ctx context.Context) {
	for round := range b.options.rounds {
		for _, r := range selectRelays(b.options) {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, b.options.rounds, r.title)
			if r.datagrams {
				b.withRelay(ctx, r, func(t target) { b.pair(ctx, datagrams(b.options), t) })
			}
			if b.options.udp {
				continue
			}
			b.withRelay(ctx, r, func(t target) {
				for _, m := range paired(b.options) {
					b.pair(ctx, m, t)
				}
			})
			if b.options.cid != 0 {
				if b.options.cid == loopbackCID {
					b.withRelay(ctx, r, func(t target) {
						s, err := kernelFigures(ctx, t)
						b.note(ctx, t, s, nil, err)
					})
				}
				continue // the memory at the guest cannot be seen from here
			}
			b.withRelay(ctx, r, func(t target) {
				s, err := slowTrips(b.options)(ctx, t)
				b.note(ctx, t, s, nil, err)
			})
			if r.page != "" {
				b.withRelay(ctx, r, func(t target) {
					s, err := requestRates(r.page, r.webName)(ctx, t)
					b.note(ctx, t, s, nil, err)
				})
			}
			b.withRelay(ctx, r, func(t target) {
				count, err := idleCountFor(r, b.options.idle)
				if err != nil {
					b.note(ctx, t, nil, nil, err)
					return
				}
				s, err := idleMemory(count)(ctx, t)
				b.note(ctx, t, s, nil, err)
			})
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// idleCountFor is how many idle connections a relay is asked to hold.
func idleCountFor(r relay, wanted int) (int, error) {
	limit, err := fileLimit()
	if err != nil {
		return 0, err
	}
	// A relay's process has two descriptors for each connection, and some of its own.
	count := min(wanted, (limit-256)/2)
	if r.maxIdle > 0 {
		count = min(count, r.maxIdle)
	}
	return max(1, count), nil
}

// withRelay runs f while the relay is up.
func (b *bench) withRelay(ctx context.Context, r relay, f func(target)) {
	if ctx.Err() != nil {
		return
	}
	run, err := r.open(ctx, b.setting)
	if err != nil {
		b.note(ctx, target{name: r.name}, nil, nil, fmt.Errorf("start: %w", err))
		return
	}
	defer run.close()
	f(run.target)
}

// pair measures loopback and then t.
func (b *bench) pair(ctx context.Context, m measure, t target) {
	if ctx.Err() != nil {
		return
	}
	base, err := m(ctx, b.loopback)
	if err != nil {
		b.note(ctx, b.loopback, nil, nil, err)
		return
	}
	s, err := m(ctx, t)
	b.note(ctx, t, s, base, err)
}

// note records a sample, or why there is none.
func (b *bench) note(ctx context.Context, t target, s, base sample, err error) {
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		b.results.add(t.name, s, base)
		return
	}
	fmt.Fprintf(os.Stderr, "  %s: %v\n", t.name, err)
	b.results.fail(t.name, err)
	for _, servers := range []*servers{b.local, b.remote} {
		if servers == nil {
			continue
		}
		if err := servers.reset(); err != nil {
			b.results.fail("iperf3", err)
		}
	}
}
