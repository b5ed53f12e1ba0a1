package complete

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

const (
	// limit is how long the agent has: a person waits.
	limit = 150 * time.Millisecond
	// rows is how many ports are offered at most, about; more than that nobody reads.
	rows = 200
)

// Source asks the agent at a socket. A word that it returns may have a description behind a tab.
type Source struct {
	Socket string
	// Begun is what has been typed of the word.
	Begun string
}

func (s Source) ask(ctx context.Context, q status.Query) []status.VM {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	st, err := control.NewClient(s.Socket).StatusOf(ctx, q)
	if err != nil {
		return nil
	}
	// What would not be the same when it is typed is not offered.
	return slices.DeleteFunc(st.VMs, func(vm status.VM) bool { return vm.Name != output.Clean(vm.Name) })
}

// VMs are the names of VMs, with their states.
func (s Source) VMs(ctx context.Context) (words []string) {
	for _, vm := range s.ask(ctx, status.Query{Rows: 1}) {
		words = append(words, vm.Name+"\t"+vm.State)
	}
	return words
}

// Sides are where ports are that are wanted.
type Sides int

const (
	// Guest is in VMs.
	Guest Sides = 1 << iota
	// Here is on this host.
	Here
)

// Added are the forwards that were added to a VM, or without a name to all, as [HOST:]GUEST.
func (s Source) Added(ctx context.Context, vm, proto string) (words []string) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	all, err := control.NewClient(s.Socket).Forwards(ctx, vm)
	if err != nil {
		return nil
	}
	for _, a := range all {
		if a.Proto == proto {
			words = append(words, a.Ports()+"\t"+output.Clean(a.VM))
		}
	}
	slices.Sort(words)
	return words
}

// Ports are those that a VM has, or without a name all have, on some sides, with who listens there; without a protocol
// those of both.
func (s Source) Ports(ctx context.Context, vm, proto string, where Sides) (words []string) {
	ports := make(map[uint16]string)
	note := func(port uint16, text string) { ports[port] = cmp.Or(ports[port], text) }
	is := func(f status.Forward) bool { return f.Port != 0 && !f.Reverse && (proto == "" || f.Proto == proto) }
	of := status.Query{VM: vm, Rows: rows}
	if s.Begun != "" {
		of.Rows = 0 // it may be any of thousands
	}
	all := s.ask(ctx, of)
	for _, v := range all {
		for _, f := range v.Forwards {
			if where&Guest == 0 || !is(f) {
				continue
			}
			note(f.Port, fmt.Sprintf("%s, %s in %s", output.Clean(cmp.Or(f.Label, f.Process, "a program")), f.State, v.Name))
		}
	}
	for _, v := range all {
		for _, f := range v.Forwards {
			for _, a := range f.Host {
				if where&Guest == 0 && f.State == status.Ignored {
					continue // it is not there
				}
				at, err := netip.ParseAddrPort(a)
				if where&Here != 0 && err == nil && is(f) {
					note(at.Port(), fmt.Sprintf("port %d of %s", f.Port, v.Name))
				}
			}
		}
	}
	for port, text := range ports {
		if number := strconv.Itoa(int(port)); strings.HasPrefix(number, s.Begun) {
			words = append(words, number+"\t"+text)
		}
	}
	slices.Sort(words)
	return words[:min(len(words), rows)]
}

// States are those that VMs and forwards are in, with how many are.
func (s Source) States(ctx context.Context) (words []string) {
	vms, forwards := make(map[string]int), make(map[string]int)
	for _, vm := range s.ask(ctx, status.Query{Rows: 1}) {
		vms[vm.State]++
		for _, f := range vm.Forwards {
			forwards[f.State]++
		}
		for state, n := range vm.More {
			forwards[state] += n
		}
	}
	for state, n := range forwards {
		words = append(words, fmt.Sprintf("%s\tports: %d", state, n))
	}
	for state, n := range vms {
		words = append(words, fmt.Sprintf("%s\tVMs: %d", state, n))
	}
	slices.Sort(words)
	return words
}
