package forward

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// maxBound is how many forwards of one VM can have host addresses, so that a
// guest cannot take the whole host.
const maxBound = 1024

// The limits that a forward can meet.
var (
	errTooMany = fmt.Errorf("this VM has %d ports forwarded already, which is the most", maxBound)
	errShare   = errors.New("this VM has its share of the descriptors that this agent may open (ulimit -n)")
)

// defaultDescriptors leaves half of what the process may have open to connections.
func defaultDescriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 512 // half of the usual soft limit
	}
	return int(min(limit.Cur/2, math.MaxInt32))
}

// consumer is a part of a VM that shares its room with the other parts: what one
// rule makes of the ports of one user's program, or expects without seeing them. The
// users of a guest share first, and then each one's consumers: a program may give
// itself any name, and as many as it likes.
type consumer struct {
	ports   int         // forwards and rows
	bound   []*forward  // that have host addresses
	waiting []*row      // for room, the oldest first; some of them no longer
	waits   int         // how many of them still do
	outcome *outcome    // of the last row
	key     consumerKey // in vm.consumers
}

type consumerKey struct {
	uid           uint32
	rule, program string
	expected      bool
}

// consumerOf is whose the forwards of a group are.
func consumerOf(g *policy.Group) consumerKey {
	program, _, _ := strings.Cut(g.Process, "[")
	return consumerKey{g.UID, g.Decision.Rule, program, g.Expected}
}

// join counts a forward or a row with its consumer, leave takes it away.
func (v *VM) join(k consumerKey) *consumer {
	c := v.consumers[k]
	if c == nil {
		c = &consumer{key: k}
		v.consumers[k] = c
	}
	c.ports++
	return c
}

func (v *VM) leave(c *consumer) {
	if c.ports--; c.ports == 0 {
		delete(v.consumers, c.key)
	}
}

// gotAddress and lostAddress count the forwards that have host addresses.
func (f *forward) gotAddress() {
	if f.opened++; f.opened > 1 {
		return
	}
	f.vm.bound++
	f.vm.users[f.consumer.key.uid]++
	f.at = len(f.consumer.bound)
	f.consumer.bound = append(f.consumer.bound, f)
}

func (f *forward) lostAddress() {
	if f.opened--; f.opened > 0 {
		return
	}
	f.vm.bound--
	c := f.consumer
	if f.vm.users[c.key.uid]--; f.vm.users[c.key.uid] == 0 {
		delete(f.vm.users, c.key.uid)
	}
	last := len(c.bound) - 1
	c.bound[f.at] = c.bound[last]
	c.bound[f.at].at = f.at
	c.bound[last] = nil
	c.bound = c.bound[:last]
}

// addHalf has a binding wait that met a limit while others of its forward are open.
func (v *VM) addHalf(b *binding) {
	if len(v.halves) > 2*v.bound+64 {
		v.halves = slices.DeleteFunc(v.halves, func(b *binding) bool { return !b.isHalf() })
	}
	v.halves = append(v.halves, b)
}

func (b *binding) isHalf() bool { return b.roomless && b.claimed && b.opened > 0 }

// nextHalf takes from the queue what the limit on forwards does not concern.
func (v *VM) nextHalf() *binding {
	for len(v.halves) > 0 {
		b := v.halves[0]
		v.halves[0] = nil
		v.halves = v.halves[1:]
		if b.isHalf() {
			return b
		}
	}
	return nil
}

// next takes from the queue what has waited longest.
func (c *consumer) next() *row {
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

// need is the room that a forward's binding wants.
type need struct {
	vm          *VM
	consumer    *consumer
	descriptors int
	half        bool // the forward has other host addresses already
}

func (b *binding) need() need { return need{b.vm, b.consumer, len(b.wanted), b.opened > 0} }

// needOf is that of the first binding of a new forward.
func (v *VM) needOf(g *policy.Group) need {
	k := consumerOf(g)
	c := v.consumers[k]
	if c == nil {
		c = &consumer{key: k}
	}
	return need{vm: v, consumer: c, descriptors: max(1, len(g.Decision.Host))}
}

// noRoom is the limit that stands against a need now; nil for none.
func (t *Table) noRoom(n need) error {
	switch {
	case !n.half && n.vm.bound >= maxBound:
		return errTooMany
	case t.used+n.descriptors > t.cfg.Descriptors:
		return errShare
	}
	return nil
}

// makeRoom takes host addresses from whoever has most of them, if that is far
// more than n's VM has, or in that VM its consumer: everybody has what it needs
// as long as that is little, and the big ones share the rest.
func (t *Table) makeRoom(n need) error {
	err := t.noRoom(n)
	if err == nil {
		return nil
	}
	from := t.giver(n, err)
	if from == nil {
		return err
	}
	for ; err != nil; err = t.noRoom(n) {
		c := from.biggest()
		if c == nil || c == n.consumer {
			return err
		}
		t.shelve(c.bound[len(c.bound)-1], err.Error())
	}
	return nil
}

// giver is the VM that has to make room for n; nil if none has.
func (t *Table) giver(n need, err error) *VM {
	from := n.vm
	// Evicting a forward gives back one descriptor at least; with this margin
	// nothing is evicted in vain, or back and forth.
	margin := 4 * n.descriptors
	if errors.Is(err, errShare) {
		if g := t.greediest(); g.used > n.vm.used+margin {
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
func (t *Table) greediest() *VM {
	var most *VM
	for _, v := range t.vms {
		if most == nil || v.used > most.used {
			most = v
		}
	}
	return most
}

// biggest is the consumer that has most forwards with host addresses, of the user who
// has most; nil if none has any.
func (v *VM) biggest() *consumer {
	var most *consumer
	for _, c := range v.consumers {
		if len(c.bound) > 0 && (most == nil || v.compare(c, most) > 0) {
			most = c
		}
	}
	return most
}

// compare tells who has more, first by user.
func (v *VM) compare(a, b *consumer) int {
	return cmp.Or(cmp.Compare(v.users[a.key.uid], v.users[b.key.uid]), cmp.Compare(a.key.uid, b.key.uid),
		cmp.Compare(len(a.bound), len(b.bound)))
}

// fillRoom binds what waits for room, for one turn: that of the VM that has
// least first, and there of the smallest consumer. It reports whether there is
// more to do.
func (t *Table) fillRoom(u turn) (more bool) {
	for {
		switch v, b, r := t.nextForRoom(); {
		case b != nil:
			t.retry(b)
		case r != nil:
			t.promote(v, r)
		default:
			return false
		}
		if u.over() {
			return true
		}
	}
}

// nextForRoom is what is to be bound next: a binding, or what a row stands for.
func (t *Table) nextForRoom() (v *VM, b *binding, r *row) {
	if t.used >= t.cfg.Descriptors {
		return nil, nil, nil
	}
	var least *VM
	for _, v := range t.vms {
		if (v.bound < maxBound && v.waits > 0 || len(v.halves) > 0) && (least == nil || v.used < least.used) {
			least = v
		}
	}
	if least == nil {
		return nil, nil, nil
	}
	if b := least.nextHalf(); b != nil {
		if t.noRoom(b.need()) == nil {
			return least, b, nil
		}
		least.halves = append(least.halves, b)
		return nil, nil, nil
	}
	if least.bound >= maxBound || least.waits == 0 {
		return t.nextForRoom()
	}
	var c *consumer
	for _, o := range least.consumers {
		if o.waits > 0 && (c == nil || least.compare(o, c) < 0) {
			c = o
		}
	}
	if r = c.next(); r == nil {
		return nil, nil, nil
	}
	first := r
	if k := least.kept(r.key); k != nil {
		first = k
	}
	noRoom := t.noRoom(need{vm: least, consumer: first.consumer, descriptors: max(1, len(first.host))})
	if noRoom != nil || first != r {
		c.waiting = append([]*row{r}, c.waiting...)
	}
	if noRoom != nil {
		// The next one may need less; that will do when more is released.
		return nil, nil, nil
	}
	return least, nil, first
}

// outOfRoom gives a binding that met a limit its state. What has no other makes place
// for a row.
func (t *Table) outOfRoom(b *binding, err error) {
	if b.opened == 0 {
		t.shelve(b.forward, err.Error())
		return
	}
	b.become(status.Denied, err.Error())
	b.roomless = true
	b.vm.addHalf(b)
	b.vm.outOfRoom(b.key.Port, b.reason)
}

// outOfRoom tells the log of the first port of a VM that met a limit: there may be
// thousands.
func (v *VM) outOfRoom(port uint16, reason string) {
	if !v.full {
		v.full = true
		v.table.log.Warn("ports stay closed", "vm", v.name, "port", port, "reason", reason)
	}
}
