package forward

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"golang.org/x/sys/unix"
)

// maxNext bounds how many ports are tried, of which each costs two system calls.
const maxNext = 100

// mayMove reports whether a rule takes the next free port where its own cannot be bound for
// that reason. What waits does so for the addresses that it has, and what has moved stays.
func (b *binding) mayMove(err error) bool {
	bind, _ := errors.AsType[*host.BindError](err)
	return b.decision.NextFree && !b.own && !b.claimed && b.insteadOf == nil && bind != nil && bind.At.Path == "" && isConflict(err)
}

func isConflict(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, host.ErrSettling)
}

// openNext opens all addresses of b at the next port where all are free, after err at that of
// the rule. The error is err where there is none, and b as it was.
func (t *Table) openNext(b *binding, err error, mayEvict bool) ([]host.Listener, error) {
	rule, first := b.wanted, b.first
	for n := 1; n <= maxNext && int(rule[0].Addr.Port())+n <= math.MaxUint16; n++ {
		b.wanted, b.first = make([]host.Addr, len(rule)), 0
		for i, h := range rule {
			h.Addr = netip.AddrPortFrom(h.Addr.Addr(), h.Addr.Port()+uint16(n))
			b.wanted[i] = h
		}
		listeners, nextErr := t.open(b, mayEvict)
		if nextErr == nil {
			t.moved(b, rule, err)
			return listeners, nil
		}
		if !isConflict(nextErr) {
			break
		}
	}
	b.wanted, b.first = rule, first
	return nil, err
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

// tookNext notes who has the address of the rule, as far as that is known.
func (b *binding) tookNext(at, next host.Addr, holder string) {
	b.because = fmt.Sprintf("%v is in use", at)
	if holder != "" {
		b.because = fmt.Sprintf("%v is held by %s", at, holder)
	}
	b.because += fmt.Sprintf(", and the rule takes the next free port, %d", next.Addr.Port())
}
