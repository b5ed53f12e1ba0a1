package forward

import (
	"errors"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"golang.org/x/sys/unix"
)

// openOrClaim gives a new binding its host addresses or makes it a claim.
func (t *Table) openOrClaim(b *binding) {
	t.overrule(b)
	t.takePrecedence(b)
	t.displace(b)
	if !t.bind(b, true) {
		t.claim(b)
	}
}

// withdraw takes a forward off the host.
func (t *Table) withdraw(f *forward) {
	if t.takeDown(f) {
		t.log.Info("port closed", "vm", f.vm.name, "port", f.key.Port)
	}
}

// takeDown ends what a forward has and waits for. It reports whether it had host
// addresses.
func (t *Table) takeDown(f *forward) (released bool) {
	for _, b := range f.bindings() {
		t.yield(b)
		t.endPrecedence(b)
		released = t.remove(b) || released
	}
	if f.own != nil {
		delete(f.vm.owns, f.key.Anywhere())
	}
	f.publishEnd()
	f.seat.Leave()
	f.vm.suggested.Drop(f, f.suggested)
	f.vm.changed()
	f.service.End()
	return released
}

// remove ends a binding or a claim. It reports whether that released an address.
func (t *Table) remove(b *binding) (released bool) {
	if b.open == nil {
		t.unclaim(b)
		if t.comesFirst(b) {
			t.freed(b)
		}
		return false
	}
	t.freed(b)
	for i, l := range b.open.listeners {
		if l.Closer != nil {
			t.vacate(b.wanted[i])
		}
	}
	b.release()
	b.seat.Close()
	return true
}

// bind opens all addresses of b or none. It reports whether it did; if not, the
// binding says why. Where a limit is met, mayEvict lets it take from others.
func (t *Table) bind(b *binding, mayEvict bool) bool {
	listeners, err := t.open(b, mayEvict)
	if err != nil && b.mayMove(err) {
		listeners, err = t.openNext(b, err, mayEvict)
	}
	if err != nil {
		t.explain(b, err)
		return false
	}
	done := make(chan struct{})
	for i, l := range listeners {
		if err := b.serve(l.Closer, done); err != nil {
			close(done)
			t.host.CloseAll(listeners...)
			t.explain(b, &host.BindError{At: b.wanted[i], Err: err})
			return false
		}
	}
	for i, l := range listeners {
		if l.Closer != nil {
			t.occupy(b.wanted[i], b)
		}
	}
	if b.insteadOf == nil {
		b.because = ""
	}
	b.seat.Open()
	b.open = &opening{listeners, done}
	b.become(status.Active, "")
	b.publish()
	b.shadowed, b.heldAt = false, nil
	t.awaitMissing(b)
	t.freed(b) // whoever waits for it says who has it
	log := t.log.Info
	if b.own && b.main.open != nil {
		log = t.log.Debug // the port was said to be open
	}
	log("port open", "vm", b.vm.name, "port", b.key.Port, "host", b.hosts(), "process", b.process)
	return true
}

func (t *Table) open(b *binding, mayEvict bool) (listeners []host.Listener, err error) {
	if r := b.vm.room.Keeper(b.key); r != nil {
		return nil, errors.New(r.Reason())
	}
	for n := range b.wanted {
		i := b.nth(n)
		if err := t.obstacle(b, b.wanted[i]); err != nil {
			b.first = i
			return nil, &host.BindError{At: b.wanted[i], Err: err}
		}
	}
	check := t.room.Lacks
	if mayEvict {
		check = t.room.Make
	}
	if err := check(b.Need()); err != nil {
		return nil, err
	}
	var missing error
	opened := 0
	listeners = make([]host.Listener, len(b.wanted))
	defer func() {
		if err != nil {
			t.host.CloseAll(listeners...)
		}
	}()
	for n := range b.wanted {
		i := b.nth(n)
		addr := b.wanted[i]
		l, err := t.host.Open(addr, b.vm.name)
		switch {
		case err == nil:
			listeners[i] = l
			opened++
		case b.canDoWithout(addr) && host.NoSuchAddress(err):
			missing = &host.BindError{At: addr, Err: err}
		default:
			b.first = i
			return listeners, &host.BindError{At: addr, Err: err}
		}
	}
	if opened == 0 && missing != nil {
		return nil, missing
	}
	return listeners, nil
}

// obstacle is what is known to keep b from an address, without trying it.
func (t *Table) obstacle(b *binding, h host.Addr) error {
	if t.rival(b, h) != nil {
		return unix.EADDRINUSE
	}
	return t.host.Obstacle(h, b.vm.name)
}

// rival is the binding of ours that keeps b from h, if any.
func (t *Table) rival(b *binding, h host.Addr) *binding {
	if b.own {
		if r := t.overrules.First(h); r != nil {
			return r
		}
	}
	if r := b.preferred(); r != nil {
		return r
	}
	if r := b.outranking(h); r != nil {
		return r
	}
	return t.contests.Opponent(h)
}
