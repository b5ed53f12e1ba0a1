package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
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
)

// tenant is a program of the host that has an address which VMs want, or had it.
type tenant struct {
	seen time.Time // when it was last looked for
	left time.Time // when it was first seen to be gone; zero while it is there
	back time.Time // when it last came back; zero for never
	// round is that of the table in which it was looked for.
	round int
	name  string    // as [Config.Holder] says
	asked time.Time // when that was asked; zero for never
}

// wait is how long the address stays free after the tenant has left.
func (x *tenant) wait() time.Duration {
	if !x.back.IsZero() && x.left.Sub(x.back) < restlessFor {
		return restlessTime
	}
	return settleTime
}

var errSettling = errors.New("kept free for a program of this host")

// settlingError says that an address is kept free for the program that had it.
type settlingError struct{ tenant *tenant }

func (e *settlingError) Is(target error) bool { return target == errSettling }

func (e *settlingError) Error() string {
	why := ""
	wait := e.tenant.wait()
	if wait == restlessTime {
		why = ", because it came back before"
	}
	return fmt.Sprintf("was left by %s just now, and is bound %v after that%s",
		cmp.Or(e.tenant.name, "a program of this host"), wait, why)
}

// heldByTenant is why a program of the host keeps an address from being bound; nil if
// none does.
func (t *Table) heldByTenant(h hostAddr) error {
	x := t.tenants[h]
	if x == nil {
		return nil
	}
	now := t.cfg.Now()
	if x.round != t.round {
		if inUse(h) {
			t.tenantSeen(h)
		} else if x.left.IsZero() {
			// While no claim was there nobody saw when: it may be just now.
			x.left = now
		}
		x.round, x.seen = t.round, now
	}
	switch {
	case x.left.IsZero():
		return unix.EADDRINUSE
	case now.Sub(x.left) < x.wait():
		return &settlingError{x}
	}
	return nil
}

// tenantSeen notes that a program of the host has an address.
func (t *Table) tenantSeen(h hostAddr) {
	now := t.cfg.Now()
	x := t.tenants[h]
	if x == nil {
		t.forgetTenants(now)
		x = &tenant{}
		t.tenants[h] = x
	}
	if !x.left.IsZero() {
		x.back, x.left, x.name, x.asked = now, time.Time{}, "", time.Time{}
	}
	x.round, x.seen = t.round, now
}

func (t *Table) forgetTenants(now time.Time) {
	if len(t.tenants) < maxTenants {
		return
	}
	for h, x := range t.tenants {
		if now.Sub(x.seen) > restlessFor {
			delete(t.tenants, h)
		}
	}
}

// inUse reports whether somebody has an address, without taking it: a TCP socket
// that does not listen keeps no server from binding.
func inUse(h hostAddr) bool {
	if h.proto == policy.ProtoUnix {
		return served(h.path)
	}
	return errors.Is(tryBind(h), unix.EADDRINUSE)
}

// served reports whether a program listens on a unix socket. Connecting to it as
// if it were for datagrams disturbs nobody; see [endpoint.ListenSocket].
func served(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // which says nothing, and is looked at again
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT)
}

func tryBind(h hostAddr) error {
	if h.proto == "udp" {
		lc := net.ListenConfig{}
		c, err := lc.ListenPacket(context.Background(), "udp"+network(h.addr.Addr())[len("tcp"):], h.addr.String())
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(h.addr.Port()), Addr: h.addr.Addr().As16()})
	if h.addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(h.addr.Port()), Addr: h.addr.Addr().As4()}
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

// nameTenants finds out who has the addresses that claims wait for. The search
// takes no lock.
func (t *Table) nameTenants() {
	var ask []hostAddr
	now := t.cfg.Now()
	t.mu.Lock()
	for h, x := range t.tenants {
		c := t.spots[h.spot()]
		if c != nil && len(c.claims) > 0 && x.left.IsZero() && now.Sub(x.asked) >= askEvery && len(ask) < asksPerTurn {
			x.asked = now
			ask = append(ask, h)
		}
	}
	t.mu.Unlock()
	for _, h := range ask {
		name := t.holderOf(h)
		t.mu.Lock()
		t.named(h, name)
		t.mu.Unlock()
	}
}

// named takes in who has an address. That may have been bound by now.
func (t *Table) named(h hostAddr, name string) {
	x, c := t.tenants[h], t.spots[h.spot()]
	if x == nil || c == nil || !x.left.IsZero() {
		return
	}
	x.name = name
	for _, b := range c.claims {
		if b.heldAt == h {
			t.settle(b, b.state, x.holds(h))
		}
	}
}

// holds says that the tenant has an address.
func (x *tenant) holds(h hostAddr) string {
	if x.name == "" {
		return fmt.Sprintf("%v is in use", h)
	}
	return fmt.Sprintf("%v is held by %s", h, x.name)
}
