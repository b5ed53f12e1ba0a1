package forward

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"golang.org/x/sys/unix"
)

var errTooMany = fmt.Errorf("this VM has %d ports forwarded already, which is the most", maxBound)

// bindError says which address could not be bound.
type bindError struct {
	addr hostAddr
	err  error
}

func (e *bindError) Error() string { return e.err.Error() }
func (e *bindError) Unwrap() error { return e.err }

// explain sets state and reason of what could not be bound.
func (t *Table) explain(b *binding, err error) {
	bind, _ := errors.AsType[*bindError](err)
	var rival *binding
	inUse := errors.Is(err, unix.EADDRINUSE)
	if inUse {
		rival = t.rival(b, bind.addr)
	}
	b.shadowed = rival != nil && rival.vm == b.vm && b.key.port != 0 && rival.key.port == b.key.port && rival.key.proto == b.key.proto
	switch {
	case b.shadowed:
		b.holder = holder{}
		t.settle(b, control.Claim, b.shadowedBy(rival, bind.addr))
	case rival != nil:
		b.holder = holder{}
		has := "held"
		if rival.open == nil {
			has = "wanted"
		}
		t.settle(b, control.Claim, fmt.Sprintf("%v is %s by %s", bind.addr, has, rival.as(b)))
	case inUse && b.holder.of == bind.addr:
		// The claim keeper finds out who that is, and looks again now and then.
	case inUse:
		b.holder = holder{of: bind.addr}
		b.state, b.reason = control.Claim, fmt.Sprintf("%v is in use", bind.addr)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, errTooMany):
		b.holder = holder{}
		t.settle(b, control.Denied, denial(bind, err))
	case noSuchAddress(err) && bind != nil:
		b.holder = holder{}
		t.settle(b, control.Claim, noAddress(bind.addr))
	default:
		b.holder = holder{}
		t.settle(b, control.Claim, err.Error())
	}
}

// as names a forward that has what another one wants.
func (b *binding) as(other *binding) string {
	f, o := b.forward, other.forward
	switch {
	case f.key.port == o.key.port && f.key.socket == o.key.socket:
		return "VM " + f.vm.name
	case f.key.socket != "":
		return fmt.Sprintf("VM %s, for its socket %s", f.vm.name, f.key.socket)
	}
	return fmt.Sprintf("VM %s, for its port %d", f.vm.name, f.key.port)
}

// denial says what would have to be done, where that is known.
func denial(bind *bindError, err error) string {
	// 1024 is PROT_SOCK of linux/net/sock.h, the default of the setting.
	if bind == nil || bind.addr.path != "" || bind.addr.addr.Port() >= 1024 {
		return err.Error()
	}
	return fmt.Sprintf("%v needs a permission; give it with: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=%d",
		bind.addr, bind.addr.addr.Port())
}

// settle gives what is unbound its state and says so when that is news.
func (t *Table) settle(b *binding, state, reason string) {
	b.state, b.reason = state, reason
	if b.told == reason {
		return
	}
	b.told = reason
	level := slog.LevelWarn
	if b.own && state == control.Denied && b.main.state == control.Denied {
		level = slog.LevelDebug // the same was said of the rule's addresses
	}
	t.log.Log(t.ctx, level, "port not open yet", "vm", b.vm.name, "port", b.key.port, "state", state, "reason", reason)
}
