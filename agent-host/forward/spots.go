package forward

import (
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
)

// spots are those of the wanted addresses, none twice.
func (b *binding) spots() []host.Spot {
	out := make([]host.Spot, 0, 1)
	for _, h := range b.wanted {
		if s := h.Spot(); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// occupy and vacate keep the books of what is bound.
func (t *Table) occupy(h host.Addr, b *binding) {
	t.contests.Take(h, b)
	b.vm.room.Take()
	if host.CanGo(h) {
		t.keepAddresses()
	}
}

func (t *Table) vacate(h host.Addr) { t.contests.Give(h).vm.room.Give() }

// claim makes a binding wait for its addresses, behind those that do already.
func (t *Table) claim(b *binding) {
	if b.shelved {
		return
	}
	b.claimed = true
	t.contests.Wait(b, b.spots())
	for _, o := range b.bindings() {
		if o.roomless && b.seat.Opened() == 0 {
			b.Shelve(o.reason)
			return
		}
	}
}

func (t *Table) unclaim(b *binding) {
	b.claimed = false
	b.roomless = false
	t.contests.Leave(b, b.spots())
}
