package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/forward/room"
	"golang.org/x/sys/unix"
)

// addressesEvery is how long an address that has come back may stay unused, or one
// that has gone be shown. A look costs one attempt for each address, however many
// ports are or want to be there.
const addressesEvery = time.Second

// awaitMissing sees to it that addresses which this host does not have now are
// bound when it has them: IPv6 goes with a VPN, and comes back.
func (t *Table) awaitMissing(b *binding) {
	missing := b.missing()
	if len(missing) == 0 {
		return
	}
	b.reason = noAddress(missing[0])
	t.partial[b] = true
	t.keepAddresses()
}

func noAddress(h host.Addr) string {
	return fmt.Sprintf("%v: this host has no such address now", h)
}

// missing are the wanted addresses that an open binding does not have.
func (b *binding) missing() (out []host.Addr) {
	for _, h := range b.wanted {
		if !b.listensOn(h) {
			out = append(out, h)
		}
	}
	return out
}

// keepAddresses sees to it that the host's addresses are looked at.
func (t *Table) keepAddresses() {
	if !t.looking {
		t.looking = true
		t.wg.Go(t.addressKeeper)
	}
}

// addressKeeper looks at the host's addresses for as long as a binding lacks one or
// may lose one.
func (t *Table) addressKeeper() {
	tick := time.NewTicker(addressesEvery)
	defer tick.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-tick.C:
		}
		gone := t.goneAddresses()
		more := false
		t.inTurns(func(u turn) bool {
			if len(gone) > 0 && t.lose(gone, u) {
				return true
			}
			if len(t.partial) > 0 {
				t.host.NewRound()
				t.complete()
			}
			t.looking = len(t.partial)+len(t.losable) > 0
			more = t.looking
			return false
		})
		if !more {
			return
		}
	}
}

// complete binds what is missing and has come back.
func (t *Table) complete() {
	here := make(map[netip.Addr]bool)
	for b := range t.partial {
		if b.open == nil {
			delete(t.partial, b)
			continue
		}
		b.reason = ""
		for _, h := range b.missing() {
			ip := h.Addr.Addr()
			if _, asked := here[ip]; !asked {
				here[ip] = host.HasAddress(ip)
			}
			reason := noAddress(h)
			if here[ip] {
				reason = t.add(b, h)
			}
			if b.reason == "" {
				b.reason = reason
			}
		}
		if b.reason == "" {
			delete(t.partial, b)
			t.log.Info("port open", "vm", b.vm.name, "port", b.key.Port, "host", b.hosts(), "process", b.process)
		}
	}
}

// add binds one more address of an open binding, and says why if it cannot.
func (t *Table) add(b *binding, h host.Addr) (reason string) {
	err := t.obstacle(b, h)
	if err == nil && t.room.Full() {
		err = room.ErrShare
	}
	var l host.Listener
	if err == nil {
		l, err = t.host.Open(h)
	}
	switch {
	case err == nil:
	case host.NoSuchAddress(err):
		return noAddress(h)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Sprintf("%v is in use", h)
	case errors.Is(err, room.ErrShare):
		return err.Error()
	case errors.Is(err, host.ErrSettling):
		return fmt.Sprintf("%v %v", h, err)
	default:
		return err.Error()
	}
	if err := b.serve(l.Closer, b.open.done); err != nil {
		t.host.CloseAll(l)
		return err.Error()
	}
	b.open.listeners[slices.Index(b.wanted, h)] = l
	t.occupy(h, b)
	return ""
}
