package room

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
)

// MaxBound is how many forwards of one VM can have host addresses, so that a
// guest cannot take the whole host.
const MaxBound = 1024

// The limits that a forward can meet.
var (
	ErrTooMany = fmt.Errorf("this VM has %d ports forwarded already, which is the most", MaxBound)
	ErrShare   = errors.New("this VM has its share of the descriptors that this agent may open (ulimit -n)")
)

// defaultDescriptors leaves half of what the process may have open to connections.
func defaultDescriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 512 // half of the usual soft limit
	}
	return int(min(limit.Cur/2, math.MaxInt32))
}

// Room is what all VMs share.
type Room struct {
	most int // descriptors
	used int // of those, or more by the overdraft
	vms  []*VM

	demands []int // room for what each VM wants, while that is looked at
}

// New returns the room for that many descriptors; 0 is half of what this process may have
// open.
func New(descriptors int) *Room {
	if descriptors == 0 {
		descriptors = defaultDescriptors()
	}
	return &Room{most: descriptors}
}

// Owner puts forwards of a VM on the host.
type Owner interface {
	// Promote puts a forward in the place of a row for which there is room.
	Promote(r *Row)
}

// Forward is one that has host addresses.
type Forward interface {
	// Shelve makes a row of it, for that reason.
	Shelve(reason string)
}

// Binding is a part of a forward that may wait for room while others of it have some.
type Binding interface {
	// Waits reports whether it still does.
	Waits() bool
	// Need is the room that it wants.
	Need() Need
	// Retry binds it if that can be.
	Retry()
}

// VM is one VM's part of the room.
type VM struct {
	room  *Room
	owner Owner

	bound     int // forwards that have host addresses
	used      int // descriptors of those
	consumers map[consumerKey]*Consumer
	programs  map[uint32]int // consumers, by the guest's user
	users     map[uint32]int // forwards that have host addresses, by the guest's user
	rows      rows           // what has no host addresses
	waits     int            // rows that wait for a limit
	halves    []Binding      // that do, of forwards with others; some of them no longer
	full      bool           // it was said that something waits
	expected  int            // ports that are being decided on
}

// Add gives a VM a part of the room.
func (all *Room) Add(owner Owner) *VM {
	v := &VM{room: all, owner: owner, consumers: make(map[consumerKey]*Consumer), programs: make(map[uint32]int), users: make(map[uint32]int)}
	all.vms = append(all.vms, v)
	return v
}

// Remove has a VM get nothing any more. What it has it gives back by itself.
func (all *Room) Remove(v *VM) {
	all.vms = slices.DeleteFunc(all.vms, func(o *VM) bool { return o == v })
}

// Take takes a descriptor for a VM, and Give gives it back.
func (v *VM) Take() { v.used++; v.room.used++ }

// Give undoes [VM.Take].
func (v *VM) Give() { v.used--; v.room.used-- }

// Full reports whether no descriptor is left.
func (all *Room) Full() bool { return all.used >= all.most }

// Waiting has a binding wait that met a limit while others of its forward are open.
func (v *VM) Waiting(b Binding) {
	if len(v.halves) > 2*v.bound+64 {
		v.halves = slices.DeleteFunc(v.halves, func(b Binding) bool { return !b.Waits() })
	}
	v.halves = append(v.halves, b)
}

// nextHalf takes from the queue what the limit on forwards does not concern.
func (v *VM) nextHalf() Binding {
	for len(v.halves) > 0 {
		b := v.halves[0]
		v.halves[0] = nil
		v.halves = v.halves[1:]
		if b.Waits() {
			return b
		}
	}
	return nil
}

// IsFirst reports whether nothing has met a limit before, since all had room: there may be
// thousands that do.
func (v *VM) IsFirst() bool {
	was := v.full
	v.full = true
	return !was
}

// Need is the room that a forward's binding wants.
type Need struct {
	consumer    *Consumer
	descriptors int
	half        bool // the forward has other host addresses already
}

// NeedOf is that of the first binding of a new forward.
func (v *VM) NeedOf(g *policy.Group) Need {
	k := v.keyOf(g)
	c := v.consumers[k]
	if c == nil {
		c = &Consumer{vm: v, key: k}
	}
	return Need{consumer: c, descriptors: max(1, len(g.Decision.Host))}
}

// Lacks is the limit that stands against a need now, [ErrTooMany] or [ErrShare]; nil for none.
func (all *Room) Lacks(n Need) error {
	switch {
	case !n.half && n.consumer.vm.bound >= MaxBound:
		return ErrTooMany
	case all.used+n.descriptors > all.most, all.isOthers(n):
		return ErrShare
	}
	return nil
}

// Expect says how many ports of a VM are being decided on. Until there are none, other VMs have
// no more than their share with them: what they would have beyond that they would lose again.
func (v *VM) Expect(ports int) { v.expected = ports }

// isOthers reports whether a need is beyond the share of its VM beside what others expect.
func (all *Room) isOthers(n Need) bool {
	mine, wants := n.consumer.vm, n.consumer.vm.used+n.descriptors
	if wants <= all.most/max(1, len(all.vms)) {
		return false
	}
	expected := 0
	all.demands = all.demands[:0]
	for _, v := range all.vms {
		if v != mine {
			expected += v.expected
		}
		all.demands = append(all.demands, v.used+v.waits+len(v.halves)+v.expected)
	}
	return expected > 0 && wants > Level(all.demands, all.most)
}

// Level is the most that each may have, of what it wants, so that all have so many together:
// who wants less leaves the rest to the others. It sorts what each wants.
func Level(wants []int, together int) int {
	slices.Sort(wants)
	for i, n := range wants {
		if share := together / (len(wants) - i); n > share {
			return share
		}
		together -= n
	}
	return slices.Max(append(wants, 0))
}

// MayHave reports whether there is room for a need, or will be when [Room.Make] is called; if
// not, the error is the limit.
func (all *Room) MayHave(n Need) error {
	err := all.Lacks(n)
	if err != nil && all.giver(n, err) != nil {
		return nil
	}
	return err
}

// Make takes host addresses from whoever has most of them, if that is far
// more than n's VM has, or in that VM its consumer. Where the overdraft will do, it leaves
// that to [Room.Fill], which is to be called then.
func (all *Room) Make(n Need) error {
	err := all.Lacks(n)
	if err == nil {
		return nil
	}
	from := all.giver(n, err)
	switch {
	case from == nil:
		return err
	case from != n.consumer.vm && all.used+n.descriptors <= all.most+overdraft:
		return nil
	}
	for all.takeBack() {
	}
	for err = all.Lacks(n); err != nil; err = all.Lacks(n) {
		c := from.biggest()
		if c == nil || c == n.consumer {
			return err
		}
		c.shelveLast(err)
	}
	return nil
}

// giver is the VM that has to make room for n; nil if none has.
func (all *Room) giver(n Need, err error) *VM {
	from := n.consumer.vm
	// Evicting a forward gives back one descriptor at least; with this margin
	// nothing is evicted in vain, or back and forth.
	margin := 4 * n.descriptors
	if errors.Is(err, ErrShare) && !all.isOthers(n) {
		if g := all.greediest(); g.used-all.overdrawn() > from.used+margin {
			return g
		}
	}
	c := from.biggest()
	if c == nil || c == n.consumer {
		return nil
	}
	has, wants := len(c.bound), len(n.consumer.bound)
	if c.key.uid != n.consumer.key.uid {
		has, wants = from.users[c.key.uid], from.users[n.consumer.key.uid]
	}
	if has <= wants+n.descriptors {
		return nil
	}
	return from
}

// greediest is the VM that has most descriptors.
func (all *Room) greediest() *VM {
	var most *VM
	for _, v := range all.vms {
		if most == nil || v.used > most.used {
			most = v
		}
	}
	return most
}

// biggest is the consumer that has most forwards with host addresses, of the user who
// has most; nil if none has any.
func (v *VM) biggest() *Consumer {
	var most *Consumer
	for _, c := range v.consumers {
		if len(c.bound) > 0 && (most == nil || v.compare(c, most) > 0) {
			most = c
		}
	}
	return most
}

// compare tells who has more, first by user.
func (v *VM) compare(a, b *Consumer) int {
	return cmp.Or(cmp.Compare(v.users[a.key.uid], v.users[b.key.uid]), cmp.Compare(a.key.uid, b.key.uid),
		cmp.Compare(len(a.bound), len(b.bound)))
}
