package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// target is where a measurement connects, and whose resources it counts.
type target struct {
	name  string
	host  string // IPv4 address of the services
	cid   uint32 // where they are over AF_VSOCK itself, with nothing between; else 0
	ports ports
	pids  []int // the relay's processes; those they start count too; none for loopback
}

func (t target) echo() string   { return t.addr(t.ports.echo) }
func (t target) source() string { return t.addr(t.ports.source) }
func (t target) reply() string  { return t.addr(t.ports.reply) }
func (t target) sink() string   { return t.addr(t.ports.sink) }

func (t target) addr(port int) string {
	if t.cid != 0 {
		return vsockScheme + net.JoinHostPort(strconv.Itoa(int(t.cid)), strconv.Itoa(port))
	}
	return net.JoinHostPort(t.host, strconv.Itoa(port))
}

// relay is one way to carry connections from here to a network namespace.
type relay struct {
	name     string
	title    string
	tools    []string // programs it needs
	binaries []string // programs of this project it needs
	maxIdle  int      // idle connections it can be asked to hold; 0: as many as wanted

	// start makes the ports of to reachable on 127.0.0.1 here, under the same numbers.
	start func(s setting) ([]*process, error)

	// datagrams: the relay carries UDP too.
	datagrams bool

	// page and webName are where ports of the guest are found by name, and what follows their number there; "" for nowhere.
	page, webName string

	// bare: there is no relay, the services of the guest themselves are reached over AF_VSOCK.
	bare bool

	// check, if any, says whether what was started is what the name says.
	check func(ctx context.Context, s setting) error
}

// setting is what a relay is started in.
type setting struct {
	to    netns
	ports ports
	bin   string        // directory of this project's programs
	cid   uint32        // of a guest that is reached over AF_VSOCK
	keys  string        // directory of ssh's keys for that guest
	delay time.Duration // of a round trip between an ssh and its sshd; 0: no more than the machine takes
}

// all lists the ports a relay carries.
func (p ports) all() []int { return []int{p.iperf, p.echo, p.source, p.reply, p.sink} }

var relays = []relay{
	{
		name: "socat", title: "socat twice", tools: []string{"socat"},
		maxIdle: 250, // two processes for each connection
		start:   startSocat,
	},
	{name: "c", title: "C, asleep in epoll_wait", tools: []string{"cc"}, start: startC},
	{
		name: "ssh", title: "ssh -L", tools: sshTools,
		maxIdle: sshMaxIdle,
		start:   func(s setting) ([]*process, error) { return startSSH(s, "") },
	},
	{
		name: "ssh-aes128", title: "ssh -L aes128-gcm", tools: sshTools,
		maxIdle: sshMaxIdle,
		start:   func(s setting) ([]*process, error) { return startSSH(s, "aes128-gcm@openssh.com") },
	},
	{
		name: "raw", title: "rum raw (unix:)", binaries: append([]string{http3Program}, rumBinaries...), datagrams: true,
		page: "127.0.0.1:7070", webName: "bench.localhost:7070",
		start: startRaw, check: expectPath("unix"),
	},
	{name: "mux", title: "rum mux (exec:)", binaries: append([]string{http3Program}, rumBinaries...), datagrams: true, start: startMux, check: expectPath("mux")},
	{name: "remote", title: "rum remote (--host)", tools: sshTools, binaries: rumBinaries, start: startRemote, check: expectPath("mux")},
	{name: "ssh-lan", title: "ssh -L, 1 ms", tools: sshTools, maxIdle: sshMaxIdle, start: overLAN(func(s setting) ([]*process, error) { return startSSH(s, "") })},
	{name: "remote-lan", title: "rum remote, 1 ms", tools: sshTools, binaries: rumBinaries, start: overLAN(startRemote), check: expectPath("mux")},
}

// overLAN is start where the guest's host is a network away.
func overLAN(start func(setting) ([]*process, error)) func(setting) ([]*process, error) {
	return func(s setting) ([]*process, error) {
		s.delay = lanDelay
		return start(s)
	}
}

func relayNames(relays []relay) []string {
	var names []string
	for _, r := range relays {
		names = append(names, r.name)
	}
	return names
}

// available are the relays there are for the kind of guest.
func (o options) available() []relay {
	switch {
	case o.cid != 0:
		return vsockRelays
	case o.old != "":
		return append(slices.Clone(relays), muxOf(o.old))
	}
	return relays
}

// muxOf is the agents of another build over one session.
func muxOf(bin string) relay {
	return relay{
		name: "mux-old", title: "the same, other build",
		start: func(s setting) ([]*process, error) {
			s.bin = bin
			return startMux(s)
		},
		check: func(ctx context.Context, s setting) error {
			s.bin = bin
			return expectPath("mux")(ctx, s)
		},
	}
}

func selectRelays(o options) []relay {
	return slices.DeleteFunc(slices.Clone(o.available()), func(r relay) bool {
		return len(o.only) > 0 && !slices.Contains(o.only, r.name) || o.udp && !r.datagrams
	})
}

// running is a relay that carries connections.
type running struct {
	target
	processes []*process
}

// open starts a relay and returns once it carries connections.
func (r relay) open(ctx context.Context, s setting) (*running, error) {
	if r.bare {
		return &running{target: target{name: r.name, cid: s.cid, ports: s.ports}}, nil
	}
	processes, err := r.start(s)
	run := &running{target: target{name: r.name, host: "127.0.0.1", ports: s.ports}, processes: processes}
	if err != nil {
		run.close()
		return nil, err
	}
	for _, p := range processes {
		run.pids = append(run.pids, p.cmd.Process.Pid)
	}
	err = waitReady(ctx, run.target, processes)
	if err == nil && r.check != nil {
		err = r.check(ctx, s)
	}
	if err != nil {
		run.close()
		return nil, err
	}
	return run, nil
}

// close stops the relay, the end that clients connect to first.
func (r *running) close() {
	for _, p := range slices.Backward(r.processes) {
		p.stop()
	}
}

// readyTimeout is long enough for a key exchange on a busy machine, or an emulated one.
const readyTimeout = time.Minute

// waitReady waits until every port of t has a listener here and a byte makes the round trip.
func waitReady(ctx context.Context, t target, processes []*process) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := allListen(t.ports)
		if err == nil {
			err = probe(ctx, t.echo())
		}
		if err == nil {
			return nil
		}
		for _, p := range processes {
			if ended := p.ended(); ended != nil {
				return ended
			}
		}
		select {
		case <-ctx.Done():
			for _, p := range processes {
				err = fmt.Errorf("%w\n  %s: %s", err, filepath.Base(p.cmd.Path), p.tail)
			}
			return fmt.Errorf("not ready after %v: %w", readyTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// allListen looks rather than connects, so that no server sees a connection that is no client.
func allListen(p ports) error {
	sockets, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return err
	}
	for _, port := range p.all() {
		// Of a line: the local port, the peer there is none of, and TCP_LISTEN of include/net/tcp_states.h.
		if !bytes.Contains(sockets, fmt.Appendf(nil, ":%04X 00000000:0000 0A", port)) {
			return fmt.Errorf("nothing listens on port %d", port)
		}
	}
	return nil
}

// probe sends one byte to an echo service and waits for it.
func probe(ctx context.Context, addr string) error {
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	return exchange(conn, make([]byte, 1))
}
