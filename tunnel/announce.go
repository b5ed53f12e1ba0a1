package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Announcement is what listens in a guest: always the complete set, sorted by
// protocol and address. Deltas exist on the wire only.
type Announcement struct {
	// Generation counts the changes of the set in the guest agent's life. 0
	// means that the guest has not been able to look yet: the empty set says
	// nothing then.
	Generation uint64
	// Listeners have their inodes only where the guest has the host's kernel.
	Listeners []portwatch.Listener
	// Skipped is how many items the guest announces besides that cannot be
	// forwarded, and SkipReason says of one of them what it is.
	Skipped    int
	SkipReason string
	// ScanError says why the guest cannot see its listeners at present; the
	// set is the last one it saw. Empty when all is well.
	ScanError string
}

// announced is the host's copy of a guest's set. It believes nothing: a delta
// that does not fit the set ends the link, and the next one starts from a
// snapshot.
type announced struct {
	generation uint64
	valid      bool // a snapshot has arrived
	sameKernel bool // the guest is a container here, and its inodes are ours
	set        map[listenerKey]portwatch.Listener
	skipped    map[string]string // reasons by what tells an item apart
	scanError  string
}

// listenerKey is what makes a listener the same one; the rest may change.
type listenerKey struct {
	proto string
	addr  netip.AddrPort
}

func keyOf(l portwatch.Listener) listenerKey {
	return listenerKey{l.Proto, l.Addr}
}

// apply takes in one message and reports whether it was an announcement.
func (a *announced) apply(m wire.Message) (bool, error) {
	switch m := m.(type) {
	case *wire.SnapshotMessage:
		if m.Generation == 0 {
			return false, errors.New("snapshot of generation 0, which is none")
		}
		a.set = make(map[listenerKey]portwatch.Listener, len(m.Listeners))
		a.skipped = make(map[string]string)
		a.generation, a.valid = m.Generation, true
		return true, a.add(m.Listeners, m.Skipped)
	case *wire.DeltaMessage:
		if !a.valid || m.From != a.generation {
			return false, fmt.Errorf("delta from generation %d, expected %d", m.From, a.generation)
		}
		for _, l := range m.Removed {
			if _, ok := a.set[keyOf(l)]; !ok {
				return false, fmt.Errorf("delta removes %s %v, which was not announced", l.Proto, l.Addr)
			}
			delete(a.set, keyOf(l))
		}
		for _, i := range m.SkippedRemoved {
			delete(a.skipped, i.Key())
		}
		a.generation = m.To
		return true, a.add(m.Added, m.SkippedAdded)
	case *wire.ScanErrorMessage:
		a.scanError = m.Text
		return true, nil
	}
	return false, nil
}

func (a *announced) add(ls []portwatch.Listener, skipped []wire.SkippedItem) error {
	for _, l := range ls {
		a.set[keyOf(l)] = l
	}
	for _, i := range skipped {
		a.skipped[i.Key()] = i.Reason
	}
	if n := len(a.set) + len(a.skipped); n > wire.MaxListeners {
		return fmt.Errorf("%d listeners announced, at most %d are allowed", n, wire.MaxListeners)
	}
	return nil
}

func (a *announced) announcement() Announcement {
	listeners := slices.SortedFunc(maps.Values(a.set), compareListeners)
	if !a.sameKernel {
		for i := range listeners {
			listeners[i].Inode = 0
		}
	}
	return Announcement{
		Generation: a.generation,
		Listeners:  listeners,
		Skipped:    len(a.skipped),
		SkipReason: a.skipReason(),
		ScanError:  a.scanError,
	}
}

// skipReason is the same one for as long as the same items are skipped.
func (a *announced) skipReason() string {
	if len(a.skipped) == 0 {
		return ""
	}
	return a.skipped[slices.Min(slices.Collect(maps.Keys(a.skipped)))]
}

func compareListeners(a, b portwatch.Listener) int {
	if c := strings.Compare(a.Proto, b.Proto); c != 0 {
		return c
	}
	return a.Addr.Compare(b.Addr)
}
