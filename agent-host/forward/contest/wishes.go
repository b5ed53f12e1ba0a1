package contest

import (
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
)

// Wishes are addresses that some ask for before others, whether or not they have them.
type Wishes[B comparable] map[host.Spot]map[host.Addr][]B

// Add notes that b asks for an address, behind those that do already.
func (w Wishes[B]) Add(b B, h host.Addr) {
	s := h.Spot()
	if w[s] == nil {
		w[s] = make(map[host.Addr][]B)
	}
	w[s][h] = append(w[s][h], b)
}

// Drop notes that it does no more.
func (w Wishes[B]) Drop(b B, h host.Addr) {
	at := w[h.Spot()]
	left := slices.DeleteFunc(at[h], func(o B) bool { return o == b })
	if len(left) > 0 {
		at[h] = left
		return
	}
	delete(at, h)
	if len(at) == 0 {
		delete(w, h.Spot())
	}
}

// First asked first for an address, or for one that excludes it.
func (w Wishes[B]) First(h host.Addr) (b B) {
	for at, all := range w[h.Spot()] {
		if at == h || host.Wildcard(at) == h || at == host.Wildcard(h) {
			return all[0]
		}
	}
	return b
}
