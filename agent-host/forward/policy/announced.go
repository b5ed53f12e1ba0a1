package policy

import (
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Announced is since when each listener of a guest has been announced. What becomes of it on
// the host changes with rules and releases; this does not. The zero value knows of none.
type Announced struct {
	listeners []portlist.Listener // sorted; those of the VM, which may be thousands
	at        []int64             // of each, as [time.Time.UnixMilli] has it
}

// Next is what it is once these listeners, sorted, are announced, at a time.
func (a Announced) Next(listeners []portlist.Listener, now time.Time) Announced {
	next := Announced{listeners, make([]int64, len(listeners))}
	before, at := a.listeners, now.UnixMilli()
	for i, l := range listeners {
		order := 1
		for len(before) > 0 {
			if order = portlist.Compare(before[0], l); order >= 0 {
				break
			}
			before = before[1:]
		}
		if next.at[i] = at; len(before) > 0 && order == 0 {
			next.at[i] = a.at[len(a.at)-len(before)]
		}
	}
	return next
}

// Since is when the first of the listeners of a forward was announced; now where none is.
func (a Announced) Since(listeners []portlist.Listener, now time.Time) time.Time {
	first := now.UnixMilli()
	for _, l := range listeners {
		if i, ok := slices.BinarySearchFunc(a.listeners, l, portlist.Compare); ok {
			first = min(first, a.at[i])
		}
	}
	return time.UnixMilli(first)
}
