package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	guestagent "github.com/rum-vm/rum-agent/agent-guest"
	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// serialDevice is the virtio-serial port that the host's set-up adds under the
// name rum.agent.0; udev makes the link.
const serialDevice = "/dev/virtio-ports/rum.agent.0"

// minPoll is above what a look at the ports takes in a guest with some hundred of them.
const minPoll = 10 * time.Millisecond

// Values of --netns.
const netnsOwn, netnsAll = "own", "all"

// options is the command line of serving.
type options struct {
	listen   []string
	stdio    bool
	keyFile  string
	poll     time.Duration
	netns    string
	hosts    string
	allowCID cidList
	logLevel slog.Level
	version  bool
}

func (o *options) flags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("rum-guest-agent", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetInterspersed(false) // what follows a subcommand is its own
	flags.Usage = func() {}
	flags.StringArrayVar(&o.listen, "listen", nil,
		"serve the host at `ENDPOINT`: vsock[:PORT], unix:PATH or serial:DEVICE; may be\nrepeated (default vsock, and "+serialDevice+" if there)")
	flags.BoolVar(&o.stdio, "stdio", false, "serve one link on standard input and output, and nothing else\nunless --listen is given too")
	flags.StringVar(&o.keyFile, "key-file", "", "prove to know the key in `FILE`, and demand it of the host: 32 bytes or\n64 hexadecimal digits, closed to other users (chmod 600)")
	flags.DurationVar(&o.poll, "poll", portwatch.DefaultInterval, "look for ports this often, where the kernel does not tell of them")
	flags.StringVar(&o.netns, "netns", netnsOwn, "announce what listens in the network namespace of this agent (\"own\"), or in\nthose of containers too (\"all\"), by the addresses they have here")
	flags.StringVar(&o.hosts, "hosts", "", "keep the host's name, "+guestagent.HostName+", in `FILE`, or in \"none\"\n(default "+hostsFile+" for root of a VM: on vsock or a virtio port)")
	flags.Var(&o.allowCID, "allow-cid", "also accept vsock connections from context `ID`, for tests over vsock loopback:\nany local user could then connect; may be repeated")
	flags.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "log from this `LEVEL` on: debug, info, warn or error")
	flags.BoolVar(&o.version, "version", false, "print the version")
	return flags
}

// check reports values that can never work.
func (o *options) check() error {
	if o.poll < minPoll {
		return misuse(fmt.Errorf("--poll %v: want %v or more, such as 100ms", o.poll, minPoll))
	}
	if o.netns != netnsOwn && o.netns != netnsAll {
		return misuse(fmt.Errorf("--netns %s: want own or all", o.netns))
	}
	_, err := o.endpoints()
	return err
}

// hostsFile is where a VM looks for names first.
const hostsFile = "/etc/hosts"

// hostsKept returns where the host's name is kept; "" for nowhere. Whoever is no root,
// or is not reached as a VM is, may share the file with a machine that is no guest.
func (o *options) hostsKept(endpoints []endpoint.Endpoint, root bool) string {
	switch {
	case o.hosts == "none":
		return ""
	case o.hosts != "":
		return o.hosts
	}
	inVM := slices.ContainsFunc(endpoints, func(e endpoint.Endpoint) bool {
		return e.Scheme == endpoint.SchemeVsock || strings.HasPrefix(e.Path, "/dev/virtio-ports/")
	})
	if !root || !inVM {
		return ""
	}
	return hostsFile
}

// endpoints returns where to listen; without --listen that is wherever a host
// could be.
func (o *options) endpoints() ([]endpoint.Endpoint, error) {
	names := o.listen
	if len(names) == 0 && !o.stdio {
		names = []string{"vsock"}
		if _, err := os.Stat(serialDevice); err == nil {
			names = append(names, "serial:"+serialDevice)
		}
	}
	endpoints := make([]endpoint.Endpoint, 0, len(names))
	for _, name := range names {
		e, err := endpoint.ParseListen(name)
		if err != nil {
			return nil, misuse(fmt.Errorf("--listen: %w", err))
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

// cidList is a flag that collects vsock context IDs.
type cidList []uint32

// Set adds one context ID.
func (l *cidList) Set(s string) error {
	cid, err := strconv.ParseUint(s, 10, 32)
	if err != nil || cid == math.MaxUint32 {
		return errors.New("want a vsock context ID, such as 1 for loopback")
	}
	*l = append(*l, uint32(cid))
	return nil
}

// String lists the IDs.
func (l *cidList) String() string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(*l)), ","), "[]")
}

// Type names the value in the help.
func (l *cidList) Type() string { return "uint32" }
