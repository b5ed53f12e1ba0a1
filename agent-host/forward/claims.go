package forward

import (
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/forward/turns"
)

const (
	// retryEvery is how often a claim is tried that waits for what this program
	// is not told of: another program's leaving, a permission, an address.
	retryEvery = 200 * time.Millisecond
	// retriesPerTurn bounds that: a try costs two system calls.
	retriesPerTurn = 1024
)

// retryAt binds what has become free at a spot, the oldest claim first.
func (t *Table) retryAt(s host.Spot) {
	for _, b := range slices.Clone(t.contests.Waiting(s)) {
		if b.claimed && !b.roomless {
			b.Retry()
		}
	}
}

// handOver gives what was released, or is now, to those that wait for it, for one turn. It
// reports whether there is more to do.
func (t *Table) handOver(u turns.Turn) (more bool) {
	for more = true; more; more = len(t.released) > 0 {
		if t.handReleased(u) || t.room.Fill(u.Over) {
			return true
		}
	}
	return false
}

func (t *Table) handReleased(u turns.Turn) (more bool) {
	for len(t.released) > 0 {
		s := t.released[len(t.released)-1]
		t.released = t.released[:len(t.released)-1]
		t.retryAt(s)
		if u.Over() {
			return true
		}
	}
	return false
}

// freed notes that a binding may no longer be in the way of others.
func (t *Table) freed(b *binding) {
	for _, s := range b.spots() {
		if len(t.contests.Waiting(s)) > 0 {
			t.released = append(t.released, s)
		}
	}
}

// comesFirst reports whether others give way to a binding although it is not open.
func (t *Table) comesFirst(b *binding) bool {
	if !b.own && slices.ContainsFunc(b.wanted, host.Contests) {
		return true
	}
	for _, s := range b.spots() {
		if slices.ContainsFunc(t.contests.Waiting(s), func(o *binding) bool { return o.vm == b.vm && o.forward != b.forward }) {
			return true
		}
	}
	return false
}

// watch sees to it that the claims at a spot are tried now and then.
func (t *Table) watch(s host.Spot) {
	if t.watched[s] {
		return
	}
	t.watched[s] = true
	t.watches = append(t.watches, s)
	if !t.keeping && !t.mu.Closed() {
		t.keeping = true
		t.wg.Go(t.claimKeeper)
	}
}

// claimKeeper tries claims that have to be watched until there are none.
func (t *Table) claimKeeper() {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		t.nameTenants()
		select {
		case <-t.ctx.Done():
			return
		case <-tick.C:
		}
		left := -1
		t.mu.InTurns(func(u turns.Turn) bool {
			if left < 0 {
				t.host.NewRound()
				left = min(len(t.watches), retriesPerTurn)
			}
			for left > 0 {
				s := t.watches[0]
				t.watches = t.watches[1:]
				delete(t.watched, s)
				t.retryAt(s)
				if left--; u.Over() {
					return true
				}
			}
			return t.handOver(u)
		})
		t.mu.Lock()
		t.keeping = len(t.watches) > 0 && !t.mu.Closed()
		more := t.keeping
		t.mu.Unlock()
		if !more {
			return
		}
	}
}

// nameTenants finds out who has the addresses that claims wait for. The search
// takes no lock.
func (t *Table) nameTenants() {
	t.mu.Lock()
	ask := t.host.Unnamed(func(h host.Addr) bool { return len(t.contests.Waiting(h.Spot())) > 0 })
	t.mu.Unlock()
	for _, h := range ask {
		name := t.host.HolderOf(h)
		t.mu.Lock()
		t.named(h, name)
		t.mu.Unlock()
	}
}

// named takes in who has an address. That may have been bound by now.
func (t *Table) named(h host.Addr, name string) {
	claims := t.contests.Waiting(h.Spot())
	if len(claims) == 0 {
		return
	}
	text, ok := t.host.Named(h, name)
	for _, b := range claims {
		if ok && b.heldAt != nil && *b.heldAt == h {
			t.settle(b, b.state, text)
		}
	}
}
