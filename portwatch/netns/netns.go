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
	// maxNamespaces bounds the namespaces that are looked into, the oldest, and
	// maxListeners what is found, of which each has as much as any other.
	maxNamespaces, maxListeners = 256, 512
	// rest is how much longer than looking the time to the next look is, and gather joins
	// changes: a container that starts makes several.
	rest   = 20
	gather = 20 * time.Millisecond
)

// Watch calls changed with what [Finder.Find] finds, at once, if there is anything, and
// whenever that has changed, until ctx ends. It looks when told has a token, and after a time.
func Watch(ctx context.Context, networks func() []netip.Prefix, told <-chan struct{}, after func() time.Duration, changed func([]portlist.Listener)) {
	f := Finder{Proc: "/proc", Root: "/"}
	var last []portlist.Listener
	for {
		began := time.Now()
		now, whole := f.Find(networks())
		if !slices.Equal(now, last) {
			last = now
			changed(now)
		}
		if !netevents.Sleep(ctx, max(gather, rest*time.Since(began))) {
			return
		}
		if !whole {
			continue
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
	at      []netip.Addr        // where it is reached
	found   []portlist.Listener // there, sorted
	name    string              // of the container
}

// Find returns what listens in other namespaces at an address in one of the networks, the
// oldest namespace first. An address is the oldest's that has it: whoever may do so in his
// container gives himself any address. What cannot be read is as it was before, and whole is
// false then.
func (f *Finder) Find(networks []netip.Prefix) (found []portlist.Listener, whole bool) {
	whole = f.look() == nil
	all := slices.SortedFunc(maps.Values(f.namespaces), func(a, b *namespace) int {
		return cmp.Or(cmp.Compare(a.started, b.started), cmp.Compare(a.pid, b.pid))
	})
	all = all[:min(len(all), maxNamespaces)]
	names := newContainerNames(f.Proc, f.Root)
	taken := make(map[netip.Addr]bool)
	for _, n := range all {
		whole = f.read(n, networks, taken) == nil && whole
		if len(n.found) > 0 {
			n.name = names.of(f.Proc, n.pid)
		}
	}
	share(all)
	var inodes []uint64
	for _, n := range all {
		for _, l := range n.found {
			inodes = append(inodes, l.Inode)
		}
	}
	f.owners.Root = f.Proc
	owners := f.owners.Of(inodes)
	for _, n := range all {
		for _, l := range n.found {
			o := owners[l.Inode]
			l.Process, l.Program = o.Process, o.Program
			if n.name != "" {
				l.Process = n.name + "/" + cmp.Or(l.Process, "?")
			}
			found = append(found, l)
		}
	}
	return found, whole
}

// read finds what listens in a namespace, but for the addresses that are taken by one before
// it, and takes its own.
func (f *Finder) read(n *namespace, networks []netip.Prefix, taken map[netip.Addr]bool) error {
	at, err := f.addresses(n.pid, networks)
	if err == nil {
		n.at = at
	}
	at = slices.DeleteFunc(slices.Clone(n.at), func(a netip.Addr) bool { return taken[a] })
	for _, a := range at {
		taken[a] = true
	}
	if len(at) == 0 {
		n.found = nil
		return err
	}
	listeners, scanErr := n.scanner.Scan()
	if err = cmp.Or(err, scanErr); err != nil {
		return err
	}
	n.found = nil
	for _, l := range listeners {
		addr := reachable(l.Addr.Addr(), at)
		if !addr.IsValid() || l.Unusable != "" || l.Proto == "udp" && l.Ephemeral {
			continue
		}
		l.Addr = netip.AddrPortFrom(addr, l.Addr.Port())
		l.V6Only, l.Interface, l.Ephemeral = false, "", false
		n.found = append(n.found, l)
	}
	return nil
}

// share leaves of what was found in each namespace as much as of any other, if that is more
// than there is room for.
func share(all []*namespace) {
	order := slices.SortedFunc(slices.Values(all), func(a, b *namespace) int { return cmp.Compare(len(a.found), len(b.found)) })
	room := maxListeners
	for i, n := range order {
		n.found = n.found[:min(len(n.found), room/(len(order)-i))]
		room -= len(n.found)
	}
}

// look brings the namespaces up to date. One that could be seen before keeps what is known
// of it.
func (f *Finder) look() error {
	before, now := f.namespaces, make(map[string]*namespace)
	own, err := os.Readlink(filepath.Join(f.Proc, "self/ns/net"))
	if err != nil {
		return err
	}
	proc, err := procfs.NewFS(f.Proc)
	if err != nil {
		return err
	}
	procs, err := proc.AllProcs()
	if err != nil {
		return err
	}
	slices.SortFunc(procs, func(a, b procfs.Proc) int { return cmp.Compare(a.PID, b.PID) })
	foreign := make(map[string]bool)
	for _, p := range procs {
		dir := filepath.Join(f.Proc, strconv.Itoa(p.PID))
		is, err := os.Readlink(filepath.Join(dir, "ns/net"))
		if err != nil || is == own || foreign[is] {
			continue
		}
		stat, err := p.Stat()
		if err != nil || stat.State == "Z" {
			continue
		}
		n := now[is]
		if n == nil {
			if !trusted(filepath.Join(dir, "ns/net")) {
				foreign[is] = true
				continue
			}
			if n = before[is]; n == nil {
				n = &namespace{}
			}
			n.started = stat.Starttime + 1
			now[is] = n
		}
		if stat.Starttime < n.started {
			n.pid, n.started, n.scanner.Proc = p.PID, stat.Starttime, dir
		}
	}
	f.namespaces = now
	return nil
}
