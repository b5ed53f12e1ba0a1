package forward

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/rum-vm/rum-agent/agent-host/forward/host"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"golang.org/x/sys/unix"
)

// explain sets state and reason of what could not be bound, and what it waits for.
func (t *Table) explain(b *binding, err error) {
	bind, _ := errors.AsType[*host.BindError](err)
	b.shadowed, b.heldAt = false, nil
	if bind == nil {
		t.outOfRoom(b, err)
		return
	}
	b.roomless = false
	inUse := errors.Is(err, unix.EADDRINUSE)
	if inUse {
		if r := t.rival(b, bind.At); r != nil {
			t.rivalled(b, bind.At, r)
			return
		}
	}
	t.watch(bind.At.Spot())
	text, answered := "", false
	if inUse {
		text, answered = t.host.TenantAt(bind.At)
	}
	switch {
	case inUse && !answered:
		// The log hears of it when it is known who that is.
		b.heldAt = &bind.At
		b.become(status.Claim, text)
	case inUse:
		b.heldAt = &bind.At
		t.settle(b, status.Claim, text)
	case errors.Is(err, fs.ErrPermission):
		t.settle(b, status.Denied, bind.Denial())
	default:
		t.settle(b, status.Claim, host.Why(bind.At, err))
	}
}

// rivalled explains that another binding has, or comes first at, an address.
func (t *Table) rivalled(b *binding, h host.Addr, r *binding) {
	b.shadowed = r.vm == b.vm && b.key.Port != 0 && r.key.Port == b.key.Port && r.key.Proto == b.key.Proto
	if b.shadowed {
		t.settle(b, status.Claim, b.shadowedBy(r, h))
		return
	}
	has := "held"
	if r.open == nil {
		has = "wanted"
	}
	t.settle(b, status.Claim, fmt.Sprintf("%v is %s by %s", h, has, r.as(b)))
}

// as names a forward that has what another one wants.
func (b *binding) as(other *binding) string {
	f, o := b.forward, other.forward
	switch {
	case f.key.Port == o.key.Port && f.key.Socket == o.key.Socket:
		return "VM " + f.vm.name
	case f.key.Socket != "":
		return fmt.Sprintf("VM %s, for its socket %s", f.vm.name, f.key.Socket)
	}
	return fmt.Sprintf("VM %s, for its port %d", f.vm.name, f.key.Port)
}

// settle gives what is unbound its state and says so when that has changed.
func (t *Table) settle(b *binding, state, reason string) {
	b.become(state, reason)
	if b.told == reason {
		return
	}
	b.told = reason
	b.publish()
	level := slog.LevelWarn
	if b.own && state == status.Denied && b.main.state == status.Denied {
		level = slog.LevelDebug // the same was said of the rule's addresses
	}
	t.log.Log(t.ctx, level, "port not open yet", "vm", b.vm.name, "port", b.key.Port, "state", state, "reason", reason)
}
