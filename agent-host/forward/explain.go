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

// bindError says which address could not be bound.
type bindError struct {
	addr host.Addr
	err  error
}

func (e *bindError) Error() string { return e.err.Error() }
func (e *bindError) Unwrap() error { return e.err }

// explain sets state and reason of what could not be bound, and what it waits for.
func (t *Table) explain(b *binding, err error) {
	bind, _ := errors.AsType[*bindError](err)
	b.shadowed, b.heldAt = false, host.Addr{}
	if bind == nil {
		t.outOfRoom(b, err)
		return
	}
	b.roomless = false
	inUse := errors.Is(err, unix.EADDRINUSE)
	if inUse {
		if r := t.rival(b, bind.addr); r != nil {
			t.rivalled(b, bind.addr, r)
			return
		}
	}
	t.watch(bind.addr.Spot())
	text, asked := "", false
	if inUse {
		text, asked = t.host.TenantAt(bind.addr)
	}
	switch {
	case errors.Is(err, host.ErrSettling):
		t.settle(b, status.Claim, fmt.Sprintf("%v %v", bind.addr, err))
	case inUse && !asked:
		// The log hears of it when it is known who that is.
		b.heldAt = bind.addr
		b.become(status.Claim, text)
	case inUse:
		b.heldAt = bind.addr
		t.settle(b, status.Claim, text)
	case errors.Is(err, fs.ErrPermission):
		t.settle(b, status.Denied, denial(bind, err))
	case host.NoSuchAddress(err):
		t.settle(b, status.Claim, noAddress(bind.addr))
	default:
		t.settle(b, status.Claim, err.Error())
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

// denial says what would have to be done, where that is known.
func denial(bind *bindError, err error) string {
	// 1024 is PROT_SOCK of linux/net/sock.h, the default of the setting.
	if bind.addr.Path != "" || bind.addr.Addr.Port() >= 1024 {
		return err.Error()
	}
	return fmt.Sprintf("%v needs a permission; give it with: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=%d",
		bind.addr, bind.addr.Addr.Port())
}

// settle gives what is unbound its state and says so when that has changed.
func (t *Table) settle(b *binding, state, reason string) {
	b.become(state, reason)
	if b.told == reason {
		return
	}
	b.told = reason
	level := slog.LevelWarn
	if b.own && state == status.Denied && b.main.state == status.Denied {
		level = slog.LevelDebug // the same was said of the rule's addresses
	}
	t.log.Log(t.ctx, level, "port not open yet", "vm", b.vm.name, "port", b.key.Port, "state", state, "reason", reason)
}
