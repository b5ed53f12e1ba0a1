// Package announce is the set of listeners that a guest agent tells its host: the host's
// [Copy], kept by a snapshot and then deltas, and what goes where there are more than can
// be told ([Limit]). [Reverse] is the other way round: what the host has a guest listen at.
package announce

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
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
	Listeners []portlist.Listener
	// Skipped is how many items the guest announces besides that cannot be
	// forwarded, and SkipReason says of one of them what it is.
	Skipped    int
	SkipReason string
	// ScanError says why the guest cannot see its listeners at present; the
	// set is the last one it saw. Empty when all is well.
	ScanError string
}

// Copy is the host's copy of a guest's set. It believes nothing: a delta
// that does not fit the set ends the link, and the next one starts from a
// snapshot.
type Copy struct {
	// SameKernel says that the guest is a container here, and its inodes are ours.
	SameKernel bool

	generation uint64
	valid      bool // a snapshot has arrived
	// set is sorted, and replaced by every message: whoever was given it has it still.
	set       []portlist.Listener
	skipped   map[string]string // reasons by what tells an item apart
	scanError string
}

// Apply takes in one message and reports whether it was an announcement.
func (a *Copy) Apply(m wire.Message) (bool, error) {
	switch m := m.(type) {
	case *wire.SnapshotMessage:
		if m.Generation == 0 {
			return false, errors.New("snapshot of generation 0, which is none")
		}
		a.set = nil
		a.skipped = make(map[string]string)
		a.generation, a.valid = m.Generation, true
		return true, a.change(nil, m.Listeners, m.Skipped)
	case *wire.DeltaMessage:
		if !a.valid || m.From != a.generation {
			return false, fmt.Errorf("delta from generation %d, expected %d", m.From, a.generation)
		}
		for _, i := range m.SkippedRemoved {
			delete(a.skipped, i.Key())
		}
		a.generation = m.To
		return true, a.change(m.Removed, m.Added, m.SkippedAdded)
	case *wire.ScanErrorMessage:
		a.scanError = m.Text
		return true, nil
	}
	return false, nil
}

// change takes listeners from the set and adds others, which replace those of the same
// addresses. What is done for each of those that stay is little, since a guest may have
// thousands and change one of them again and again.
func (a *Copy) change(removed, added []portlist.Listener, skipped []wire.SkippedItem) error {
	removed, added = sortedListeners(removed), sortedListeners(added)
	set := make([]portlist.Listener, 0, len(a.set)+len(added))
	for _, l := range a.set {
		for len(added) > 0 && portlist.Compare(added[0], l) < 0 {
			set, added = append(set, a.known(added[0])), added[1:]
		}
		gone := len(removed) > 0 && portlist.Compare(removed[0], l) == 0
		if gone {
			removed = removed[1:]
		}
		if len(added) > 0 && portlist.Compare(added[0], l) == 0 {
			l, added, gone = a.known(added[0]), added[1:], false
		}
		if !gone {
			set = append(set, l)
		}
	}
	for _, l := range added {
		set = append(set, a.known(l))
	}
	if len(removed) > 0 {
		return fmt.Errorf("delta removes %s %v, which was not announced", removed[0].Proto, removed[0].Addr)
	}
	boundTexts(set)
	a.set = set
	for _, i := range skipped {
		a.skipped[i.Key()] = i.Reason
	}
	if n := len(a.set) + len(a.skipped); n > wire.MaxListeners {
		return fmt.Errorf("%d listeners announced, at most %d are allowed", n, wire.MaxListeners)
	}
	return nil
}

// known leaves out what says nothing here.
func (a *Copy) known(l portlist.Listener) portlist.Listener {
	if !a.SameKernel {
		l.Inode = 0
	}
	return l
}

// sortedListeners sorts listeners. Of those with one address the last counts.
func sortedListeners(ls []portlist.Listener) []portlist.Listener {
	sorted := true
	for i := 1; i < len(ls) && sorted; i++ {
		sorted = portlist.Compare(ls[i-1], ls[i]) < 0
	}
	if sorted {
		return ls // as agents send them
	}
	ls = slices.Clone(ls)
	slices.Reverse(ls)
	slices.SortStableFunc(ls, portlist.Compare)
	return slices.CompactFunc(ls, func(a, b portlist.Listener) bool { return portlist.Compare(a, b) == 0 })
}

// Announcement is the set as it is now.
func (a *Copy) Announcement() Announcement {
	return Announcement{
		Generation: a.generation,
		Listeners:  a.set,
		Skipped:    len(a.skipped),
		SkipReason: a.skipReason(),
		ScanError:  a.scanError,
	}
}

// skipReason is the same one for as long as the same items are skipped.
func (a *Copy) skipReason() string {
	if len(a.skipped) == 0 {
		return ""
	}
	return a.skipped[slices.Min(slices.Collect(maps.Keys(a.skipped)))]
}
