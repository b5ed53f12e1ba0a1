package room

// overdraft is how many descriptors more than there are may be in use for a moment: what
// is entitled to another's is bound at once, and the other gives way after that.
const overdraft = 16

// overdrawn is how many are to be given back.
func (all *Room) overdrawn() int { return max(0, all.used-all.most) }

// takeBack has a forward of the VM that has most give way, if more is in use than there is.
func (all *Room) takeBack() bool {
	if all.overdrawn() == 0 {
		return false
	}
	c := all.greediest().biggest()
	if c == nil {
		return false
	}
	c.shelveLast(ErrShare)
	return true
}

// Fill takes back what is overdrawn, and then binds what waits for room, until it is over:
// that of the VM that has least first, and there of the smallest consumer. It reports
// whether there is more to do.
func (all *Room) Fill(over func() bool) (more bool) {
	for all.takeBack() || all.bindNext() {
		if over() {
			return true
		}
	}
	return false
}

func (all *Room) bindNext() bool {
	v, b, r := all.next()
	switch {
	case b != nil:
		b.Retry()
	case r != nil:
		v.owner.Promote(r)
	default:
		return false
	}
	return true
}

// next is what is to be bound next: a binding, or what a row stands for.
func (all *Room) next() (v *VM, b Binding, r *Row) {
	if all.Full() {
		return nil, nil, nil
	}
	var least *VM
	for _, v := range all.vms {
		if (v.bound < MaxBound && v.waits > 0 || len(v.halves) > 0) && (least == nil || v.used < least.used) {
			least = v
		}
	}
	if least == nil {
		return nil, nil, nil
	}
	if b := least.nextHalf(); b != nil {
		if all.Lacks(b.Need()) == nil {
			return least, b, nil
		}
		least.halves = append(least.halves, b)
		return nil, nil, nil
	}
	if least.bound >= MaxBound || least.waits == 0 {
		return all.next()
	}
	var c *Consumer
	for _, o := range least.consumers {
		if o.waits > 0 && (c == nil || least.compare(o, c) < 0) {
			c = o
		}
	}
	if r = c.next(); r == nil {
		return nil, nil, nil
	}
	first := r
	if k := least.Keeper(r.Key); k != nil {
		first = k
	}
	lacks := all.Lacks(Need{consumer: first.consumer, descriptors: max(1, len(first.host))})
	if lacks != nil || first != r {
		c.waiting = append([]*Row{r}, c.waiting...)
	}
	if lacks != nil {
		// The next one may need less; that will do when more is released.
		return nil, nil, nil
	}
	return least, nil, first
}
