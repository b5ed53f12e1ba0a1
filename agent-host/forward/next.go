package forward

import (
	"errors"
	"fmt"
	"math"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
)

// maxNext bounds how many ports are tried, of which each costs two system calls.
const maxNext = 100

// mayMove reports whether a rule takes the next free port where its own cannot be bound for
// that reason. What waits does so for the addresses that it has, and what has moved stays.
func (b *binding) mayMove(err error) bool {
	bind, _ := errors.AsType[*host.BindError](err)
	return b.decision.NextFree && !b.own && !b.claimed && b.insteadOf == nil && bind != nil && bind.At.Path == "" && host.IsConflict(err)
}

// openNext opens all addresses of b at the next port where all are free and no rule names one,
// after err at that of the rule. The error is err where there is none, and b wants what it did.
func (t *Table) openNext(b *binding, err error, mayEvict bool) ([]host.Listener, error) {
	rule, first := b.wanted, b.first
	port := int(rule[0].Addr.Port())
	for n, tries := 1, 0; tries < maxNext && port+n <= math.MaxUint16; n++ {
		b.wanted, b.first = host.Shifted(rule, n), 0
		if last := t.namedTo(b.wanted); last > 0 {
			n = last - port
			continue
		}
		tries++
		listeners, nextErr := t.open(b, mayEvict)
		if nextErr == nil {
			t.moved(b, rule, err)
			return listeners, nil
		}
		if !host.IsConflict(nextErr) {
			b.wanted, b.first = rule, first
			return nil, err
		}
	}
	b.wanted, b.first = rule, first
	b.because = fmt.Sprintf("no free port was found after %d", port)
	return nil, err
}

// namedTo is the last port in a row from those of addresses on that rules of VMs name; 0 for none.
func (t *Table) namedTo(addrs []host.Addr) (last int) {
	for _, v := range t.vms {
		for _, h := range addrs {
			last = max(last, int(t.policy.Names(v.name, h.Proto, h.Addr)))
		}
	}
	return last
}

// mustMoveOn reports whether a rule has come to name what a forward took in the place of its own.
func (f *forward) mustMoveOn() bool {
	return f.main.insteadOf != nil && f.vm.table.namedTo(f.main.wanted) > 0
}

// moveOn has those forwards begin anew.
func (t *Table) moveOn() {
	t.decideAnew(func() (concerned []*VM) {
		for _, v := range t.vms {
			for _, f := range v.forwards.All() {
				if f.mustMoveOn() {
					v.stale.All = true
					concerned = append(concerned, v)
					break
				}
			}
		}
		return concerned
	})
}

// moved has b want its new addresses, in the place of those of its rule, in every respect.
func (t *Table) moved(b *binding, rule []host.Addr, err error) {
	next := b.wanted
	b.wanted = rule
	t.freed(b)
	t.yield(b)
	t.endPrecedence(b)
	bind, _ := errors.AsType[*host.BindError](err)
	if r := t.rival(b, bind.At); r != nil {
		b.tookNext(bind.At, next[0], r.as(b))
	} else {
		b.tookNext(bind.At, next[0], "")
		t.wg.Go(func() {
			holder := t.host.HolderOf(bind.At) // which takes time
			t.mu.Lock()
			defer t.mu.Unlock()
			b.tookNext(bind.At, next[0], holder)
		})
	}
	b.wanted, b.insteadOf = next, rule
	t.overrule(b)
	t.takePrecedence(b)
}

// tookNext notes who had the address of the rule, as far as that is known. It is not looked at
// again.
func (b *binding) tookNext(at, next host.Addr, holder string) {
	b.because = host.TookNext(at, next, holder)
}
