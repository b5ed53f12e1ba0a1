// Package contest is who has each host address, and who waits for it, the oldest first. It
// opens nothing, and does not decide who comes first; that is the package forward's, which
// guards it too.
package contest

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
)

// Contests are those for the host addresses among holders of type B, whose zero value is
// nobody. They are made by [New].
type Contests[B comparable] struct {
	holders map[host.Addr]B
	spots   map[host.Spot]*spot[B]
	losable map[netip.Addr]int // what this host may lose, and how often it is held
}

// spot is what is held and waited for at one.
type spot[B comparable] struct {
	held    []host.Addr
	waiting []B
}

// New returns contests in which nobody has anything.
func New[B comparable]() *Contests[B] {
	return &Contests[B]{holders: make(map[host.Addr]B), spots: make(map[host.Spot]*spot[B]), losable: make(map[netip.Addr]int)}
}

// Holder has an address.
func (c *Contests[B]) Holder(h host.Addr) B { return c.holders[h] }

// Holders are all addresses that somebody has, and who. That of the moment may be given up
// meanwhile.
func (c *Contests[B]) Holders() iter.Seq2[host.Addr, B] { return maps.All(c.holders) }

// Held are the addresses of a spot that somebody has, in a slice of their own.
func (c *Contests[B]) Held(s host.Spot) []host.Addr {
	if at := c.spots[s]; at != nil {
		return slices.Clone(at.held)
	}
	return nil
}

// Opponent has an address, or one that excludes it: all addresses exclude each of them.
func (c *Contests[B]) Opponent(h host.Addr) (o B) {
	if o, ok := c.holders[h]; ok || h.Path != "" {
		return o
	}
	if all := host.Wildcard(h); all != h {
		return c.holders[all]
	}
	if at := c.spots[h.Spot()]; at != nil {
		for _, a := range at.held {
			if host.Wildcard(a) == h {
				return c.holders[a]
			}
		}
	}
	return o
}

// Take notes who has an address, and Give that nobody has it any more. Give returns who had it.
func (c *Contests[B]) Take(h host.Addr, b B) {
	c.holders[h] = b
	at := c.at(h.Spot())
	at.held = append(at.held, h)
	if host.CanGo(h) {
		c.losable[h.Addr.Addr()]++
	}
}

// Give is the other half of [Contests.Take].
func (c *Contests[B]) Give(h host.Addr) (had B) {
	had = c.holders[h]
	delete(c.holders, h)
	at := c.spots[h.Spot()]
	at.held = slices.DeleteFunc(at.held, func(o host.Addr) bool { return o == h })
	c.tidy(h.Spot())
	if ip := h.Addr.Addr(); host.CanGo(h) {
		if c.losable[ip]--; c.losable[ip] == 0 {
			delete(c.losable, ip)
		}
	}
	return had
}

// Losable are the addresses held that this host may lose.
func (c *Contests[B]) Losable() []netip.Addr { return slices.Collect(maps.Keys(c.losable)) }

// Wait has b wait at spots, behind those that do already.
func (c *Contests[B]) Wait(b B, spots []host.Spot) {
	for _, s := range spots {
		at := c.at(s)
		at.waiting = append(at.waiting, b)
	}
}

// Leave ends that.
func (c *Contests[B]) Leave(b B, spots []host.Spot) {
	for _, s := range spots {
		if at := c.spots[s]; at != nil {
			at.waiting = slices.DeleteFunc(at.waiting, func(o B) bool { return o == b })
			c.tidy(s)
		}
	}
}

// Waiting are those who wait at a spot, the oldest first. The slice is not to be changed, and
// good until somebody comes or leaves.
func (c *Contests[B]) Waiting(s host.Spot) []B {
	if at := c.spots[s]; at != nil {
		return at.waiting
	}
	return nil
}

func (c *Contests[B]) at(s host.Spot) *spot[B] {
	at := c.spots[s]
	if at == nil {
		at = &spot[B]{}
		c.spots[s] = at
	}
	return at
}

// tidy forgets a spot where nobody has or waits for anything.
func (c *Contests[B]) tidy(s host.Spot) {
	if at := c.spots[s]; at != nil && len(at.held)+len(at.waiting) == 0 {
		delete(c.spots, s)
	}
}
