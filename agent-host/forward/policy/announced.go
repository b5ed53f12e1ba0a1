package policy

import (
	"net/netip"
	"time"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Announced is since when each listener of a guest has been announced. What becomes of it on
// the host changes with rules and releases; this does not. The zero value knows of none.
type Announced map[socket]int64 // as [time.Time.UnixMilli] has it: there may be thousands

// socket tells listeners apart.
type socket struct {
	proto string
	addr  netip.AddrPort
}

// Note takes note at a time of what is announced, and what is not any more, as
// [portlist.Diff] has it.
func (a *Announced) Note(added, removed []portlist.Listener, now time.Time) {
	if *a == nil {
		*a = make(Announced)
	}
	for _, l := range removed {
		delete(*a, socket{l.Proto, l.Addr})
	}
	for _, l := range added {
		if s := (socket{l.Proto, l.Addr}); (*a)[s] == 0 {
			(*a)[s] = now.UnixMilli()
		}
	}
}

// Since is when the first of the listeners of a forward was announced; now where none is.
func (a Announced) Since(listeners []portlist.Listener, now time.Time) time.Time {
	first := now.UnixMilli()
	for _, l := range listeners {
		if at, ok := a[socket{l.Proto, l.Addr}]; ok {
			first = min(first, at)
		}
	}
	return time.UnixMilli(first)
}
