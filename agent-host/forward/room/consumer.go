package room

import (
	"hash/maphash"
	"math"
	"net/netip"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
)

// Consumer is a part of a VM that shares its room with the other parts: what one
// rule makes of the ports of one user's program, or expects without seeing them. The
// users of a guest share first, and then each one's consumers: a program may give
// itself any name, and as many as it likes, of which [maxPrograms] count.
type Consumer struct {
	vm       *VM
	key      consumerKey          // in vm.consumers
	ports    int                  // forwards and rows
	bound    []*Seat              // of forwards that have host addresses
	waiting  []*Row               // for room, the oldest first; some of them no longer
	waits    int                  // how many of them still do
	outcomes recent[outcome]      // of its rows
	guests   recent[[]netip.Addr] // of its rows
}

// Ports is how many forwards and rows it has.
func (c *Consumer) Ports() int { return c.ports }

type consumerKey struct {
	uid           uint32
	rule, program string
	expected      bool
}

// How many consumers of a VM are told apart: a guest may announce thousands of ports, each of another user or
// program. Further programs of a user are one consumer. Further users share numbers by chance, which the guest
// cannot foresee: who is honest does not share with all that are not.
const (
	maxPrograms = 12
	maxUsers    = 32
	sharedUsers = 16
)

var seed = maphash.MakeSeed()

// keyOf is whose the forwards of a group are.
func (v *VM) keyOf(g *policy.Group) consumerKey {
	program, _, _ := strings.Cut(g.Process, "[")
	k := consumerKey{g.UID, g.Decision.Rule, program, g.Expected}
	if v.programs[k.uid] == 0 && len(v.programs) >= maxUsers {
		k.uid = math.MaxUint32 - uint32(maphash.Comparable(seed, k.uid)%sharedUsers) // no user has such a number
	}
	if v.consumers[k] == nil && v.programs[k.uid] >= maxPrograms {
		return consumerKey{uid: k.uid}
	}
	return k
}

// join counts a forward or a row with its consumer, leave takes it away.
func (v *VM) join(k consumerKey) *Consumer {
	c := v.consumers[k]
	if c == nil {
		c = &Consumer{vm: v, key: k}
		v.consumers[k] = c
		v.programs[k.uid]++
	}
	c.ports++
	return c
}

func (c *Consumer) leave() {
	if c.ports--; c.ports > 0 {
		return
	}
	delete(c.vm.consumers, c.key)
	if c.vm.programs[c.key.uid]--; c.vm.programs[c.key.uid] == 0 {
		delete(c.vm.programs, c.key.uid)
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
	return &Seat{of: f, consumer: v.join(v.keyOf(g))}
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
