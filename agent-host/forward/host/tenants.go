package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"golang.org/x/sys/unix"
)

const (
	// settleTime is how long an address stays free after a program of the host
	// has left it: a service that restarts must find it.
	settleTime = 3 * time.Second
	// restlessTime is that for a program that came back within restlessFor.
	restlessTime = 30 * time.Second
	restlessFor  = 10 * time.Minute
	// maxTenants is when tenants that are of no interest any more are forgotten.
	maxTenants = 256
	// askEvery and asksPerTurn bound the search for holders, which reads
	// /proc of every process.
	askEvery    = 2 * time.Second
	asksPerTurn = 4
)

// tenant is a program of the host that has an address which VMs want, or had it.
type tenant struct {
	seen time.Time // when it was last looked for
	left time.Time // when it was first seen to be gone; zero while it is there
	back time.Time // when it last came back; zero for never
	// round is that in which it was looked for.
	round int
	name  string    // as [Addresses.HolderOf] says
	asked time.Time // when that was asked; zero for never
	// answered tells whether that has been answered, if only by an empty name.
	answered bool
}

// wait is how long the address stays free after the tenant has left.
func (x *tenant) wait() time.Duration {
	if !x.back.IsZero() && x.left.Sub(x.back) < restlessFor {
		return restlessTime
	}
	return settleTime
}

// ErrSettling says that an address is kept free for the program that had it a moment ago.
var ErrSettling = errors.New("kept free for a program of this host")

// settlingError says that an address is kept free for the program that had it.
type settlingError struct{ tenant *tenant }

func (e *settlingError) Is(target error) bool { return target == ErrSettling }

func (e *settlingError) Error() string {
	why := ""
	wait := e.tenant.wait()
	if wait == restlessTime {
		why = ", because it came back before"
	}
	return fmt.Sprintf("was left by %s just now, and is bound %v after that%s",
		cmp.Or(e.tenant.name, "a program of this host"), wait, why)
}

// HeldByTenant is, as EADDRINUSE or [ErrSettling], why a program of the host keeps an address from being bound; nil if
// none does.
func (as *Addresses) HeldByTenant(h Addr) error {
	x := as.tenants[h]
	if x == nil {
		return nil
	}
	now := as.now()
	if x.round != as.round {
		if inUse(h) {
			as.tenantSeen(h)
		} else if x.left.IsZero() {
			// While no claim was there nobody saw when: it may be just now.
			x.left = now
		}
		x.round, x.seen = as.round, now
	}
	switch {
	case x.left.IsZero():
		return unix.EADDRINUSE
	case now.Sub(x.left) < x.wait():
		return &settlingError{x}
	}
	return nil
}

// NewRound has every tenant looked for once more.
func (as *Addresses) NewRound() { as.round++ }

// tenantSeen notes that a program of the host has an address.
func (as *Addresses) tenantSeen(h Addr) {
	now := as.now()
	x := as.tenants[h]
	if x == nil {
		as.forgetTenants(now)
		x = &tenant{}
		as.tenants[h] = x
	}
	if !x.left.IsZero() {
		x.back, x.left, x.name, x.asked, x.answered = now, time.Time{}, "", time.Time{}, false
	}
	x.round, x.seen = as.round, now
}

func (as *Addresses) forgetTenants(now time.Time) {
	if len(as.tenants) < maxTenants {
		return
	}
	for h, x := range as.tenants {
		if now.Sub(x.seen) > restlessFor {
			delete(as.tenants, h)
		}
	}
}

// inUse reports whether somebody has an address, without taking it: a TCP socket
// that does not listen keeps no server from binding.
func inUse(h Addr) bool {
	if h.Proto == policy.ProtoUnix {
		served, err := endpoint.IsServed(h.Path)
		return served || err != nil // the latter says nothing, and is looked at again
	}
	return errors.Is(tryBind(h), unix.EADDRINUSE)
}

func tryBind(h Addr) error {
	if h.Proto == "udp" {
		lc := net.ListenConfig{}
		c, err := lc.ListenPacket(context.Background(), "udp"+network(h.Addr.Addr())[len("tcp"):], h.Addr.String())
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(h.Addr.Port()), Addr: h.Addr.Addr().As16()})
	if h.Addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(h.Addr.Port()), Addr: h.Addr.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	return unix.Bind(fd, sa)
}

// holds says that the tenant has an address.
func (x *tenant) holds(h Addr) string {
	if x.name == "" {
		return fmt.Sprintf("%v is in use", h)
	}
	return fmt.Sprintf("%v is held by %s", h, x.name)
}

// TenantAt says that a program of this host has an address, and reports whether the name of that
// program has been looked for.
func (as *Addresses) TenantAt(h Addr) (text string, answered bool) {
	x := as.tenants[h]
	return x.holds(h), x.answered
}

// Unnamed are a few addresses that tenants have, of those that are wanted, whose names are to
// be asked for now: those that have waited longest.
func (as *Addresses) Unnamed(wanted func(Addr) bool) (ask []Addr) {
	now := as.now()
	for h, x := range as.tenants {
		if wanted(h) && x.left.IsZero() && now.Sub(x.asked) >= askEvery {
			ask = append(ask, h)
		}
	}
	slices.SortFunc(ask, func(a, b Addr) int { return as.tenants[a].asked.Compare(as.tenants[b].asked) })
	ask = ask[:min(len(ask), asksPerTurn)]
	for _, h := range ask {
		as.tenants[h].asked = now
	}
	return ask
}

// Named takes in who has an address. It reports false where nobody has it any more.
func (as *Addresses) Named(h Addr, name string) (text string, ok bool) {
	x := as.tenants[h]
	if x == nil || !x.left.IsZero() {
		return "", false
	}
	x.name, x.answered = name, true
	return x.holds(h), true
}

// HolderOf names who has an address that could not be bound. It takes no lock, and time.
func (as *Addresses) HolderOf(h Addr) string {
	if h.Proto == policy.ProtoUnix {
		return portwatch.SocketHolder(h.Path)
	}
	return as.holder(h.Proto, h.Addr)
}
