package portwatch

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/cpushare"
	"github.com/rum-vm/rum-agent/portwatch/events"
	"github.com/rum-vm/rum-agent/portwatch/netevents"
	"github.com/rum-vm/rum-agent/portwatch/process"
)

// nameAfter are the times after a change at which processes are looked up: as soon as the
// change has been told, for a descriptor that a parent was passing to its child, for a
// server that became a daemon or another program meanwhile.
var nameAfter = []time.Duration{2 * time.Millisecond, 50 * time.Millisecond, time.Second, 5 * time.Second}

const (
	// nameLooks is how many times as long as the look that has found the change it takes at
	// least to tell of the change and for a first client to be served. A search keeps a
	// processor for many times as long, and both would wait for it.
	nameLooks = 10
	// maxNameDelay leaves time for a search, of that which a host waits for a name.
	maxNameDelay = 25 * time.Millisecond
)

// maxNamePause is the longest time between two searches for names that are due.
const maxNamePause = 10 * time.Second

// clientAge is how old a socket on an ephemeral UDP port has to be before /proc is
// searched for its process.
const clientAge = time.Second

// nameAll looks up the processes of sockets after they were shown, until ctx ends: a
// search of /proc may take as long as a hundred events.
func (w *Watcher) nameAll(ctx context.Context) {
	known := process.Owners{Root: w.scanner.root()}
	since := make(map[uint64]time.Time)
	budget := cpushare.NewBudget(nameShare, changeCost, time.Now())
	step := len(nameAfter)
	var later <-chan time.Time // when it is time for that step; nil after the last
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.nameless:
			switch {
			case w.unsettled.Swap(false):
				step = 0
			case step < len(nameAfter):
				continue // what has not changed is searched for already
			default:
				step = len(nameAfter) - 1 // once, for every look at everything comes here
			}
			first := max(nameAfter[0], min(nameLooks*time.Duration(w.lookTook.Load()), maxNameDelay))
			if !netevents.Sleep(ctx, first) {
				return
			}
		case <-later:
		}
		step++
		w.showing.Lock()
		sockets := w.all()
		if w.scanner.readEphemeral() {
			w.list()
		}
		w.showing.Unlock()
		runtime.LockOSThread() // the CPU time is that of a thread
		spent := w.cpuTime()
		changed := w.name(known.Of(inodesOf(grown(sockets, since, time.Now()))))
		spent = w.cpuTime() - spent
		runtime.UnlockOSThread()
		if changed {
			spent = costOfChange(spent, len(sockets))
		}
		budget.Spend(time.Now(), spent)
		if wait := min(budget.Wait(time.Now()), maxNamePause); wait > 0 && !netevents.Sleep(ctx, wait) {
			return
		}
		if later = nil; step < len(nameAfter) {
			later = time.After(nameAfter[step])
		}
	}
}

// name shows the sockets with their owners, and reports whether those are others.
func (w *Watcher) name(owners map[uint64]process.Owner) (changed bool) {
	renamed := make(map[uint64]bool)
	for inode, owner := range owners {
		if w.owners[inode] != owner {
			renamed[inode] = true
		}
	}
	for inode := range w.owners {
		if _, ok := owners[inode]; !ok {
			renamed[inode] = true
		}
	}
	w.showing.Lock()
	defer w.showing.Unlock()
	w.owners = owners
	if len(renamed) == 0 {
		return false
	}
	var ports []port
	for p, sockets := range w.shown {
		if slices.ContainsFunc(sockets, func(s socket) bool { return renamed[s.inode] }) {
			ports = append(ports, p)
		}
	}
	return w.relist(ports)
}

func inodesOf(sockets []socket) []uint64 {
	inodes := make([]uint64, len(sockets))
	for i, s := range sockets {
		inodes[i] = s.inode
	}
	return inodes
}

// grown leaves out the sockets of clients that are younger than clientAge; since is
// when each was seen first.
func grown(sockets []socket, since map[uint64]time.Time, now time.Time) (old []socket) {
	seen := make(map[uint64]bool, len(sockets))
	for _, s := range sockets {
		seen[s.inode] = true
		if since[s.inode].IsZero() {
			since[s.inode] = now
		}
		if s.proto != "udp" || s.bind != events.BindAutomatic || now.Sub(since[s.inode]) >= clientAge {
			old = append(old, s)
		}
	}
	for inode := range since {
		if !seen[inode] {
			delete(since, inode)
		}
	}
	return old
}
