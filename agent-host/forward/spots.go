package forward

import (
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
)

// contest is who has and who waits for addresses of a spot.
type contest struct {
	bound  []host.Addr
	claims []*binding // oldest first
}

func (t *Table) contest(s host.Spot) *contest {
	c := t.spots[s]
	if c == nil {
		c = &contest{}
		t.spots[s] = c
	}
	return c
}

// tidy forgets a spot that nobody has or waits for.
func (t *Table) tidy(s host.Spot) {
	if c := t.spots[s]; c != nil && len(c.bound)+len(c.claims) == 0 {
		delete(t.spots, s)
	}
}

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

// boundAt are the addresses of a spot that are bound.
func (t *Table) boundAt(s host.Spot) []host.Addr {
	if c := t.spots[s]; c != nil {
		return c.bound
	}
	return nil
}

// occupy and vacate keep the index of what is bound.
func (t *Table) occupy(h host.Addr, b *binding) {
	t.bound[h] = b
	c := t.contest(h.Spot())
	c.bound = append(c.bound, h)
	b.vm.room.Take()
	if host.CanGo(h) {
		t.losable[h.Addr.Addr()]++
		t.keepAddresses()
	}
}

func (t *Table) vacate(h host.Addr) {
	b := t.bound[h]
	delete(t.bound, h)
	c := t.spots[h.Spot()]
	c.bound = slices.DeleteFunc(c.bound, func(o host.Addr) bool { return o == h })
	t.tidy(h.Spot())
	b.vm.room.Give()
	if ip := h.Addr.Addr(); host.CanGo(h) {
		if t.losable[ip]--; t.losable[ip] == 0 {
			delete(t.losable, ip)
		}
	}
}

// claim makes a binding wait for its addresses, behind those that do already.
func (t *Table) claim(b *binding) {
	if b.shelved {
		return
	}
	b.claimed = true
	for _, s := range b.spots() {
		c := t.contest(s)
		c.claims = append(c.claims, b)
	}
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
	for _, s := range b.spots() {
		if c := t.spots[s]; c != nil {
			c.claims = slices.DeleteFunc(c.claims, func(o *binding) bool { return o == b })
			t.tidy(s)
		}
	}
}
