package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/ask"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Doctor examines this host, as its user and its agent see it.
type Doctor struct {
	// VM is the only one that is looked at; empty for all.
	VM string
	// Host is another host which has that VM, and There examines it there; nil for this host.
	Host  string
	There func(context.Context) ([]status.Check, error)
	// Socket is the control socket of the agent.
	Socket string
	// Version is that of this program.
	Version string
	// Root is where /dev, /lib, /proc and /sys are; empty for where they are.
	Root string
	// Now is the time; nil is [time.Now].
	Now func() time.Time
}

// exam is one examination: what several checks want to know, which is asked once.
type exam struct {
	*Doctor
	agent    status.Status
	agentErr error // why nothing is known of the agent
}

// checks are in the order in which one thing needs the other.
var checks = []func(context.Context, *exam) []status.Check{
	vsockDevice, vsockSettings, loopback, privilegedPorts, clock,
	libvirtDaemons, keyStore, agent, configuration, vms,
}

// checksRemote are those for a VM of another host, which looks at what is there itself.
var checksRemote = []func(context.Context, *exam) []status.Check{loopback, privilegedPorts, clock, keyStore, agent, configuration, vms, there}

// Examine says what was found, in an order in which what comes first may be the cause of what follows.
func (d *Doctor) Examine(ctx context.Context) (all []status.Check) {
	x := &exam{Doctor: d}
	x.agent, x.agentErr = ask.Status(ctx, d.Socket, status.Query{VM: d.VM})
	which := checks
	if d.There != nil {
		which = checksRemote
	}
	for _, check := range which {
		all = append(all, check(ctx, x)...)
	}
	return all
}

func (x *exam) path(p string) string { return filepath.Join(x.Root, p) }

func (x *exam) now() time.Time {
	if x.Now == nil {
		return time.Now()
	}
	return x.Now()
}

// well is a check that finds nothing.
func well(name, format string, args ...any) status.Check {
	return status.Check{Name: name, OK: true, Text: fmt.Sprintf(format, args...)}
}

// ill is a check that finds something, and what to do about it.
func ill(name, remedy, format string, args ...any) status.Check {
	return status.Check{Name: name, Text: fmt.Sprintf(format, args...), Remedy: remedy, Command: commandIn(remedy)}
}

// commandOf is where a remedy in words has its command: behind a colon, up to what else may be done.
var commandOf = regexp.MustCompile(`\b(?:with|see|says|or run|and run|log in again): ([a-z][^;]*)`)

// commandIn is the command of a remedy; empty where that has none.
func commandIn(remedy string) string {
	if m := commandOf.FindStringSubmatch(remedy); m != nil {
		return m[1]
	}
	return ""
}
