package forward

import (
	"fmt"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

const (
	// retryEvery is how long a port that became free may stay unused. A turn
	// costs two system calls per claim.
	retryEvery = 200 * time.Millisecond
	// askEvery and asksPerTurn bound the search for holders, which reads
	// /proc of every process.
	askEvery    = 2 * time.Second
	asksPerTurn = 4
)

// retryClaims binds what has become free, the oldest claim first: of all
// claims, or of those on the given addresses.
func (t *Table) retryClaims(on ...hostAddr) {
	waiting := t.claims[:0]
	for _, b := range t.claims {
		skip := len(on) > 0 && !slices.ContainsFunc(b.tries, func(a hostAddr) bool { return slices.Contains(on, a) })
		if skip || !t.bind(b) {
			waiting = append(waiting, b)
		}
	}
	clear(t.claims[len(waiting):])
	t.claims = waiting
}

// keepClaims sees to it that the claim keeper runs while there are claims.
func (t *Table) keepClaims() {
	if len(t.claims) > 0 && !t.keeping {
		t.keeping = true
		t.wg.Go(t.claimKeeper)
	}
}

// claimKeeper retries claims until there are none.
func (t *Table) claimKeeper() {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		t.nameHolders()
		select {
		case <-t.ctx.Done():
			return
		case <-tick.C:
		}
		t.mu.Lock()
		t.retryClaims()
		if len(t.claims) == 0 {
			t.keeping = false
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
	}
}

// nameHolders finds out who has the addresses that claims wait for. The search
// takes no lock.
func (t *Table) nameHolders() {
	type question struct {
		b    *binding
		addr hostAddr
	}
	var ask []question
	now := time.Now()
	t.mu.Lock()
	for _, b := range t.claims {
		if b.holder.of != (hostAddr{}) && !now.Before(b.holder.next) && len(ask) < asksPerTurn {
			b.holder.next = now.Add(askEvery)
			ask = append(ask, question{b, b.holder.of})
		}
	}
	t.mu.Unlock()
	for _, q := range ask {
		reason := fmt.Sprintf("%v is in use", q.addr)
		if name := t.holderOf(q.addr); name != "" {
			reason = fmt.Sprintf("%v is held by %s", q.addr, name)
		}
		t.mu.Lock()
		// It may have been bound, or fail at another address, by now.
		if q.b.state == control.Claim && q.b.holder.of == q.addr {
			t.settle(q.b, control.Claim, reason)
		}
		t.mu.Unlock()
	}
}
