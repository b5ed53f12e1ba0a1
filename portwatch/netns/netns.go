// Package netns finds what listens in other network namespaces of this machine, such as
// those of containers, and can be reached from this one: at an address of theirs that is in
// a network of ours, as that of a bridge is. What has no such address, or listens on loopback
// in there, nobody reaches from outside, and it is not found.
package netns

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/procfs"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/netevents"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/portwatch/process"
)

const (
	// maxNamespaces bounds the namespaces that are looked into: the oldest, since any user
	// may make some.
	maxNamespaces = 256
	// share bounds the time that looking takes, of all, and gather joins changes: a
	// container that starts makes several.
	share  = 20
	gather = 20 * time.Millisecond
)

// Watch calls changed with what [Finder.Find] finds, at once, if there is anything, and
// whenever that has changed, until ctx ends. It looks when told has a token, and after a time.
func Watch(ctx context.Context, networks func() []netip.Prefix, told <-chan struct{}, after func() time.Duration, changed func([]portlist.Listener)) {
	f := Finder{Proc: "/proc", Root: "/"}
	var last []portlist.Listener
	for {
		began := time.Now()
		if now := f.Find(networks()); !slices.Equal(now, last) {
			last = now
			changed(now)
		}
		if !netevents.Sleep(ctx, max(gather, share*time.Since(began))) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-told:
		case <-time.After(after()):
		}
	}
}

// Finder looks into other network namespaces. It is not safe for concurrent use.
type Finder struct {
	// Proc is where procfs is mounted, and Root where the files are in which runtimes keep
	// the names of their containers.
	Proc, Root string

	namespaces map[string]*namespace // by what their link says, "net:[4026532008]"
	owners     process.Owners
}

// namespace is one of them.
type namespace struct {
	pid     int    // the oldest process that is in it
	started uint64 // when that started, in ticks since the machine did
	scanner portwatch.Scanner
}

// Find returns what listens in other namespaces at an address in one of the networks, the
// oldest namespace first. Several may be at one address.
func (f *Finder) Find(networks []netip.Prefix) []portlist.Listener {
	f.look()
	all := slices.SortedFunc(maps.Values(f.namespaces), func(a, b *namespace) int {
		return cmp.Or(cmp.Compare(a.started, b.started), cmp.Compare(a.pid, b.pid))
	})
	names := newContainerNames(f.Proc, f.Root)
	var found []portlist.Listener
	var inodes []uint64
	of := make(map[uint64]*namespace)
	for _, n := range all[:min(len(all), maxNamespaces)] {
		listeners, err := n.scanner.Scan()
		if err != nil {
			continue // it has just ended, or may not be looked into
		}
		at := f.addresses(n.pid, networks)
		for _, l := range listeners {
			addr := reachable(l.Addr.Addr(), at)
			if !addr.IsValid() || l.Unusable != "" || l.Proto == "udp" && l.Ephemeral {
				continue
			}
			l.Addr = netip.AddrPortFrom(addr, l.Addr.Port())
			l.V6Only, l.Interface, l.Ephemeral = false, "", false
			found, inodes = append(found, l), append(inodes, l.Inode)
			of[l.Inode] = n
		}
	}
	f.owners.Root = f.Proc
	owners := f.owners.Of(inodes)
	for i := range found {
		l := &found[i]
		o := owners[l.Inode]
		l.Process, l.Program = o.Process, o.Program
		if name := names.of(f.Proc, of[l.Inode].pid); name != "" {
			l.Process = process.Printable(name, process.MaxName/2) + "/" + cmp.Or(l.Process, "?")
		}
	}
	return found
}

// look brings the namespaces up to date. One that could be seen before keeps what its
// scanner knows.
func (f *Finder) look() {
	before := f.namespaces
	f.namespaces = make(map[string]*namespace)
	own, err := os.Readlink(filepath.Join(f.Proc, "self/ns/net"))
	if err != nil {
		return
	}
	proc, err := procfs.NewFS(f.Proc)
	if err != nil {
		return
	}
	procs, err := proc.AllProcs()
	if err != nil {
		return
	}
	slices.SortFunc(procs, func(a, b procfs.Proc) int { return cmp.Compare(a.PID, b.PID) })
	for _, p := range procs {
		dir := filepath.Join(f.Proc, strconv.Itoa(p.PID))
		is, err := os.Readlink(filepath.Join(dir, "ns/net"))
		if err != nil || is == own {
			continue
		}
		stat, err := p.Stat()
		if err != nil || stat.State == "Z" {
			continue
		}
		n := f.namespaces[is]
		if n == nil {
			if n = before[is]; n == nil {
				n = &namespace{}
			}
			n.started = stat.Starttime + 1
			f.namespaces[is] = n
		}
		if stat.Starttime < n.started {
			n.pid, n.started, n.scanner.Proc = p.PID, stat.Starttime, dir
		}
	}
}
