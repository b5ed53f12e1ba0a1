package forward

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
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
	forwards int         // that there are
	bound    []*forward  // that have host addresses
	waiting  []*binding  // for room, the oldest first; some of them no longer
	waits    int         // how many of them still do
	key      consumerKey // in vm.consumers
}

type consumerKey struct {
	uid           uint32
	rule, program string
	expected      bool
}

// join makes a forward part of its consumer.
func (f *forward) join() {
	program, _, _ := strings.Cut(f.process, "[")
	k := consumerKey{f.uid, f.decision.Rule, program, f.expected}
	c := f.vm.consumers[k]
	if c == nil {
		c = &consumer{key: k}
		f.vm.consumers[k] = c
	}
	c.forwards++
	f.consumer = c
}

func (f *forward) leave() {
	if f.consumer.forwards--; f.consumer.forwards == 0 {
		delete(f.vm.consumers, f.consumer.key)
	}
}

// gotAddress and lostAddress count the forwards that have host addresses.
func (f *forward) gotAddress() {
	for _, b := range f.bindings() {
		if b.roomless {
			f.vm.halves = append(f.vm.halves, b)
		}
	}
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
	c.bound = c.bound[:last]
}

// waitsForRoom notes whether a binding waits for a limit alone.
func (b *binding) waitsForRoom(yes bool) {
	if b.roomless == yes {
		return
	}
	b.roomless = yes
	c := b.consumer
	if !yes {
		c.waits--
		b.vm.waits--
		if b.vm.waits == 0 {
			b.vm.full = false
		}
		return
	}
	c.waits++
	b.vm.waits++
	if b.opened > 0 {
		b.vm.halves = append(b.vm.halves, b)
	}
	if !b.queued {
		b.queued = true
		c.waiting = append(c.waiting, b)
	}
}

// nextHalf takes from the queue a binding of a forward that has other addresses
// already, which the limit on forwards does not concern.
func (v *VM) nextHalf() *binding {
	for len(v.halves) > 0 {
		b := v.halves[0]
		v.halves = v.halves[1:]
		if b.roomless && b.claimed && b.opened > 0 {
			return b
		}
	}
	return nil
}

// next takes from the queue what has waited longest.
func (c *consumer) next() *binding {
	for len(c.waiting) > 0 {
		b := c.waiting[0]
		c.waiting = c.waiting[1:]
		b.queued = false
		if b.roomless && b.claimed {
			return b
		}
	}
	return nil
}

// noRoom is the limit that keeps b from being bound now; nil for none.
func (t *Table) noRoom(b *binding) error {
	switch {
	case b.opened == 0 && b.vm.bound >= maxBound:
		return errTooMany
	case t.used+len(b.wanted) > t.cfg.Descriptors:
		return errShare
	}
	return nil
}

// makeRoom takes host addresses from whoever has most of them, if that is far
// more than b's VM has, or in that VM its consumer: everybody has what it needs
// as long as that is little, and the big ones share the rest.
func (t *Table) makeRoom(b *binding) error {
	err := t.noRoom(b)
	if err == nil {
		return nil
	}
	from := b.vm
	// Evicting a forward gives back one descriptor at least; with this margin
	// nothing is evicted in vain, or back and forth.
	margin := 4 * len(b.wanted)
	if errors.Is(err, errShare) {
		if g := t.greediest(); g.used > b.vm.used+margin {
			from = g
		}
	}
	if from == b.vm {
		c := from.biggest()
		if c == nil || c == b.consumer {
			return err
		}
		has, wants := len(c.bound), len(b.consumer.bound)
		if c.key.uid != b.consumer.key.uid {
			has, wants = from.users[c.key.uid], from.users[b.consumer.key.uid]
		}
		if has <= wants+len(b.wanted) {
			return err
		}
	}
	for ; err != nil; err = t.noRoom(b) {
		c := from.biggest()
		if c == nil || c == b.consumer {
			return err
		}
		t.evict(c.bound[len(c.bound)-1], err)
	}
	return nil
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

// evict takes a forward's host addresses. Its connections go on.
func (t *Table) evict(f *forward, why error) {
	for _, b := range f.bindings() {
		if b.open != nil {
			t.remove(b)
			t.explain(b, why)
			t.claim(b)
		}
	}
}

// fillRoom binds what waits for room, for one turn: that of the VM that has
// least first, and there of the smallest consumer. It reports whether there is
// more to do.
func (t *Table) fillRoom(until time.Time) (more bool) {
	for {
		b := t.nextForRoom()
		if b == nil {
			return false
		}
		t.retry(b)
		if time.Now().After(until) {
			return true
		}
	}
}

func (t *Table) nextForRoom() *binding {
	if t.used >= t.cfg.Descriptors {
		return nil
	}
	var least *VM
	for _, v := range t.vms {
		if (v.bound < maxBound && v.waits > 0 || len(v.halves) > 0) && (least == nil || v.used < least.used) {
			least = v
		}
	}
	if least == nil {
		return nil
	}
	if b := least.nextHalf(); b != nil {
		if t.noRoom(b) == nil {
			return b
		}
		least.halves = append(least.halves, b)
		return nil
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
	b := c.next()
	if b != nil && t.noRoom(b) != nil {
		// The next one may need less; that will do when more is released.
		b.queued = true
		c.waiting = append([]*binding{b}, c.waiting...)
		return nil
	}
	return b
}

// outOfRoom gives a binding that met a limit its state. The log hears of the
// first of a VM: there may be thousands.
func (t *Table) outOfRoom(b *binding, err error) {
	b.become(control.Denied, err.Error())
	b.waitsForRoom(true)
	if !b.vm.full {
		b.vm.full = true
		t.log.Warn("ports stay closed", "vm", b.vm.name, "port", b.key.port, "reason", b.reason)
	}
}
