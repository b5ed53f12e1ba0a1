package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
)

// The program starts itself again in these roles.
const (
	roleSandbox = "in-sandbox" // the measuring side, first process of its own namespaces
	roleHold    = "hold-netns" // keeps the guest's network namespace alive
	roleServe   = "serve"      // the servers that clients reach through a relay
	roleWeb     = "web"        // a web server, where nginx is not installed
	roleRelay   = "relay"      // on another host that ssh leads to
	roleDelay   = "delay"      // a network between an ssh and its sshd
	roleGuest   = "guest"      // all that relays over AF_VSOCK need at the guest
)

func init() {
	// A parent-death signal is tied to the thread that started the child: keep main on the one that lives longest.
	runtime.LockOSThread()
}

func main() {
	if err := dispatch(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func dispatch(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 {
		switch args[0] {
		case roleSandbox:
			return measureInSandbox(ctx, args[1:])
		case roleHold:
			return holdNamespace()
		case roleServe:
			return serve(ctx, args[1:])
		case roleWeb:
			return serveWeb(ctx)
		case roleRelay:
			return runRelay(ctx, args[1:])
		case roleDelay:
			return runDelay(ctx, args[1:])
		case roleGuest:
			return serveGuest(ctx, args[1:])
		}
	}
	o, err := parseOptions(args, os.Stderr)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := checkTools(o); err != nil {
		return err
	}
	return runSandboxed(ctx, args)
}

var errUsage = errors.New("usage")

type options struct {
	only    []string
	rounds  int
	seconds int
	trips   int // round trips per latency measurement
	conns   int // connections per rate measurement
	idle    int // idle connections held at once
	bin     string
	old     string // directory of agents of another build, whose mux is measured too; "" for none
	json    string
	udp     bool   // measure datagrams alone
	cid     uint32 // measure over AF_VSOCK, to this guest; 0: to a network namespace
	keys    string // ssh's keys for that, which the guest has too
}

func parseOptions(args []string, out io.Writer) (options, error) {
	var o options
	var quick bool
	fs := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	fs.SetOutput(out)
	fs.SortFlags = false
	fs.StringSliceVar(&o.only, "only", nil, "relays to measure: "+strings.Join(relayNames(relays), ","))
	fs.IntVar(&o.rounds, "rounds", 3, "times each measurement is repeated; the median counts")
	fs.IntVar(&o.seconds, "seconds", 5, "length of each transfer")
	fs.IntVar(&o.trips, "trips", 5000, "round trips per latency measurement")
	fs.IntVar(&o.conns, "conns", 3000, "connections per rate measurement")
	fs.IntVar(&o.idle, "idle", 10000, "idle connections held for the memory measurement; fewer where the relay\nor the limit of open files allows fewer")
	fs.BoolVar(&o.udp, "udp", false, "measure UDP alone, of the relays that carry it")
	fs.BoolVar(&quick, "quick", false, "a look in about a minute: one round, short and small; else it takes a\nquarter of an hour")
	fs.StringVar(&o.bin, "bin", "bin", "directory of rum-host-agent and rum-guest-agent")
	fs.StringVar(&o.old, "old", "", "`directory` of agents of another build, whose mux is measured in turns with that of --bin")
	fs.Uint32Var(&o.cid, "cid", 0, "measure over AF_VSOCK: a guest at this context `ID` runs \"bench guest\", or with 1,\nover the kernel's loopback, a network namespace does; see test/bench/vsock")
	fs.StringVar(&o.keys, "keys", "", "directory with ssh's keys, where --cid is given")
	fs.StringVar(&o.json, "json", "", "also write every sample to this `file`")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	if quick {
		for flag, small := range map[string]int{"rounds": 1, "seconds": 1, "trips": 1000, "conns": 500, "idle": 1000} {
			if !fs.Changed(flag) {
				_ = fs.Set(flag, fmt.Sprint(small))
			}
		}
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("%w: unexpected argument %q", errUsage, fs.Arg(0))
	}
	for flag, n := range map[string]int{"rounds": o.rounds, "seconds": o.seconds, "trips": o.trips, "conns": o.conns, "idle": o.idle} {
		if n < 1 {
			return o, fmt.Errorf("%w: --%s must be at least 1", errUsage, flag)
		}
	}
	for _, name := range o.only {
		if names := relayNames(o.available()); !slices.Contains(names, name) {
			return o, fmt.Errorf("%w: no relay %q; there are %s", errUsage, name, strings.Join(names, ", "))
		}
	}
	if (o.cid != 0) != (o.keys != "") {
		return o, fmt.Errorf("%w: --cid and --keys go together", errUsage)
	}
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return o, err
	}
	o.bin = bin
	if o.old != "" {
		o.old, err = filepath.Abs(o.old)
	}
	return o, err
}
