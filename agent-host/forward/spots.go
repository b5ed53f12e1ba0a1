package forward

import (
	"slices"
)

// spot is a port whatever the address, or the path of a unix socket: bindings
// contend with others on the same one only.
type spot struct {
	proto string
	port  uint16
	path  string
}

func (h hostAddr) spot() spot { return spot{h.proto, h.addr.Port(), h.path} }

// contest is who has and who waits for addresses of a spot.
type contest struct {
	bound  []hostAddr
	claims []*binding // oldest first
}

func (t *Table) contest(s spot) *contest {
	c := t.spots[s]
	if c == nil {
		c = &contest{}
		t.spots[s] = c
	}
	return c
}

// tidy forgets a spot that nobody has or waits for.
func (t *Table) tidy(s spot) {
	if c := t.spots[s]; c != nil && len(c.bound)+len(c.claims) == 0 {
		delete(t.spots, s)
	}
}

// spots are those of the wanted addresses, none twice.
func (b *binding) spots() []spot {
	out := make([]spot, 0, 1)
	for _, h := range b.wanted {
		if s := h.spot(); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// boundAt are the addresses of a spot that are bound.
func (t *Table) boundAt(s spot) []hostAddr {
	if c := t.spots[s]; c != nil {
		return c.bound
	}
	return nil
}

// occupy and vacate keep the index of what is bound.
func (t *Table) occupy(h hostAddr, b *binding) {
	t.bound[h] = b
	c := t.contest(h.spot())
	c.bound = append(c.bound, h)
	t.used++
	b.vm.used++
	if canGo(h) {
		t.losable[h.addr.Addr()]++
		t.keepAddresses()
	}
}

func (t *Table) vacate(h hostAddr) {
	b := t.bound[h]
	delete(t.bound, h)
	c := t.spots[h.spot()]
	c.bound = slices.DeleteFunc(c.bound, func(o hostAddr) bool { return o == h })
	t.tidy(h.spot())
	t.used--
	b.vm.used--
	if ip := h.addr.Addr(); canGo(h) {
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
		if o.roomless && b.opened == 0 {
			t.shelve(b.forward, o.reason)
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
