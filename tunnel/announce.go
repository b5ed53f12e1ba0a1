package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/rum-vm/rum-agent/portwatch"
)

// Announcement is what listens in a guest: always the complete set, sorted by
// protocol and address. Deltas exist on the wire only.
type Announcement struct {
	// Generation counts the changes of the set in the guest agent's life. 0
	// means that the guest has not been able to look yet: the empty set says
	// nothing then.
	Generation uint64
	Listeners  []portwatch.Listener
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
	set        map[listenerKey]portwatch.Listener
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
func (a *announced) apply(m message) (bool, error) {
	switch m := m.(type) {
	case *snapshotMessage:
		if m.Generation == 0 {
			return false, errors.New("snapshot of generation 0, which is none")
		}
		a.set = make(map[listenerKey]portwatch.Listener, len(m.Listeners))
		a.generation, a.valid = m.Generation, true
		return true, a.add(m.Listeners)
	case *deltaMessage:
		if !a.valid || m.From != a.generation {
			return false, fmt.Errorf("delta from generation %d, expected %d", m.From, a.generation)
		}
		for _, l := range m.Removed {
			if _, ok := a.set[keyOf(l)]; !ok {
				return false, fmt.Errorf("delta removes %s %v, which was not announced", l.Proto, l.Addr)
			}
			delete(a.set, keyOf(l))
		}
		a.generation = m.To
		return true, a.add(m.Added)
	case *scanErrorMessage:
		a.scanError = m.Text
		return true, nil
	}
	return false, nil
}

func (a *announced) add(ls []portwatch.Listener) error {
	for _, l := range ls {
		a.set[keyOf(l)] = l
	}
	if len(a.set) > MaxListeners {
		return fmt.Errorf("%d listeners announced, at most %d are allowed", len(a.set), MaxListeners)
	}
	return nil
}

func (a *announced) announcement() Announcement {
	return Announcement{
		Generation: a.generation,
		Listeners:  slices.SortedFunc(maps.Values(a.set), compareListeners),
		ScanError:  a.scanError,
	}
}

func compareListeners(a, b portwatch.Listener) int {
	if c := strings.Compare(a.Proto, b.Proto); c != 0 {
		return c
	}
	return a.Addr.Compare(b.Addr)
}
