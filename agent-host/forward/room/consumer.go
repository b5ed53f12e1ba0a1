package room

import (
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
)

// Consumer is a part of a VM that shares its room with the other parts: what one
// rule makes of the ports of one user's program, or expects without seeing them. The
// users of a guest share first, and then each one's consumers: a program may give
// itself any name, and as many as it likes.
type Consumer struct {
	vm      *VM
	key     consumerKey // in vm.consumers
	ports   int         // forwards and rows
	bound   []*Seat     // of forwards that have host addresses
	waiting []*Row      // for room, the oldest first; some of them no longer
	waits   int         // how many of them still do
	outcome *outcome    // of the last row
}

// Ports is how many forwards and rows it has.
func (c *Consumer) Ports() int { return c.ports }

type consumerKey struct {
	uid           uint32
	rule, program string
	expected      bool
}

// keyOf is whose the forwards of a group are.
func keyOf(g *policy.Group) consumerKey {
	program, _, _ := strings.Cut(g.Process, "[")
	return consumerKey{g.UID, g.Decision.Rule, program, g.Expected}
}

// join counts a forward or a row with its consumer, leave takes it away.
func (v *VM) join(k consumerKey) *Consumer {
	c := v.consumers[k]
	if c == nil {
		c = &Consumer{vm: v, key: k}
		v.consumers[k] = c
	}
	c.ports++
	return c
}

func (c *Consumer) leave() {
	if c.ports--; c.ports == 0 {
		delete(c.vm.consumers, c.key)
	}
}

// next takes from the queue what has waited longest.
func (c *Consumer) next() *Row {
	for len(c.waiting) > 0 {
		r := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		if r.waiting {
			return r
		}
	}
	return nil
}

// shelveLast has one of its forwards give way, for that limit.
func (c *Consumer) shelveLast(limit error) { c.bound[len(c.bound)-1].of.Shelve(limit.Error()) }

// Seat is what a forward has of its VM's room.
type Seat struct {
	of       Forward
	consumer *Consumer
	opened   int // bindings that have host addresses
	at       int // in consumer.bound
}

// Join gives a forward of a group its seat, which it has until [Seat.Leave].
func (v *VM) Join(f Forward, g *policy.Group) *Seat {
	return &Seat{of: f, consumer: v.join(keyOf(g))}
}

// Leave gives the seat back.
func (s *Seat) Leave() { s.consumer.leave() }

// Consumer is whose the forward is.
func (s *Seat) Consumer() *Consumer { return s.consumer }

// Opened is how many bindings of the forward have host addresses.
func (s *Seat) Opened() int { return s.opened }

// Need is the room for that many descriptors of another binding.
func (s *Seat) Need(descriptors int) Need { return Need{s.consumer, descriptors, s.opened > 0} }

// Open counts a binding of the forward that got its host addresses, Close one that has lost them.
func (s *Seat) Open() {
	if s.opened++; s.opened > 1 {
		return
	}
	c := s.consumer
	c.vm.bound++
	c.vm.users[c.key.uid]++
	s.at = len(c.bound)
	c.bound = append(c.bound, s)
}

// Close undoes [Seat.Open].
func (s *Seat) Close() {
	if s.opened--; s.opened > 0 {
		return
	}
	c := s.consumer
	c.vm.bound--
	if c.vm.users[c.key.uid]--; c.vm.users[c.key.uid] == 0 {
		delete(c.vm.users, c.key.uid)
	}
	last := len(c.bound) - 1
	c.bound[s.at] = c.bound[last]
	c.bound[s.at].at = s.at
	c.bound[last] = nil
	c.bound = c.bound[:last]
}
