package forward

import "github.com/rum-vm/rum-agent/agent-host/forward/host"

// spots are those of the wanted addresses.
func (b *binding) spots() []host.Spot { return host.Spots(b.wanted) }

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
