package openurl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

const (
	// broughtFor is how long a port of a VM is brought out for the answer of a page.
	broughtFor = 10 * time.Minute
	// maxBrought are brought out of a VM at a time.
	maxBrought = 4
	// announcedWithin is how long a port may take to be announced on which a program has just begun to listen,
	// and to be open here; it is looked at every lookEvery.
	announcedWithin = 2 * time.Second
	lookEvery       = 100 * time.Millisecond
	// firstPort is the first that is brought out: those below belong to the system.
	firstPort = 1024
)

// brought is a port that was brought out.
type brought struct {
	port   uint16
	at     time.Time // of the rule, by which it is known
	end    *time.Timer
	shared bool // another page has needed it since
}

// mayStay notes until when a rule may stay that was added at a time; the zero time is for one that is gone.
func (o *Opener) mayStay(added, until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if until.IsZero() {
		delete(o.until, added.UnixNano())
	} else {
		o.until[added.UnixNano()] = until
	}
}

// Explained are the forwards that were added to a VM, or with an empty name to all, with the reason of those that are
// there for a page.
func (o *Opener) Explained(vm string) ([]status.Added, error) {
	all, err := o.Forwards(vm)
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range all {
		if until, ok := o.until[all[i].AddedAt.UnixNano()]; ok {
			all[i].EndsAt = until
			if all[i].Reason == "" {
				all[i].Reason = "for the answer of a page, until " + until.Format(time.TimeOnly)
			}
		}
	}
	return all, err
}

var localhosts = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// listensAt reports whether a forward takes connections at an address of this host. One at all addresses does, since
// nobody else can have one of them beside it.
func listensAt(f *status.Forward, ip netip.Addr, port uint16) bool {
	return slices.ContainsFunc(f.Listening, func(text string) bool {
		at, err := netip.ParseAddrPort(text)
		return err == nil && at.Port() == port && (at.Addr() == ip || at.Addr().IsUnspecified() && at.Addr().Is4() == ip.Is4())
	})
}

// isLocalhost reports whether whoever connects to localhost reaches a forward: it has both addresses, or 127.0.0.1
// alone, as rum binds ports and as it is where IPv6 is off, and nobody has the other, which browsers try too.
func (o *Opener) isLocalhost(f *status.Forward, port uint16) bool {
	return listensAt(f, localhosts[0], port) && (listensAt(f, localhosts[1], port) || o.Vacant(netip.AddrPortFrom(localhosts[1], port)))
}

// vacantWithin bounds the wait for somebody who listens and does not accept.
const vacantWithin = time.Second

// vacant connects, which on loopback is refused at once where nobody listens.
func vacant(at netip.AddrPort) bool {
	c, err := net.DialTimeout("tcp", at.String(), vacantWithin)
	if err == nil {
		_ = c.Close()
		return false
	}
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)
}

// rows are the forwards of a port on which a VM listens at a loopback address of its own, or at all of its addresses.
// There are several where a rule has moved the port and another brings it out.
type rows []*status.Forward

func (o *Opener) rowsOf(vm string, port uint16) (all rows) {
	for st := range o.VMs(status.Query{VM: vm, Port: port}) {
		for i := range st.Forwards {
			f := &st.Forwards[i]
			if f.Proto == "tcp" && !f.Reverse && f.Port == port && slices.ContainsFunc(f.Guest, atLoopback) {
				all = append(all, f)
			}
		}
	}
	return all
}

// onLocalhost reports whether one of the forwards is localhost.
func (o *Opener) onLocalhost(all rows, port uint16) bool {
	return slices.ContainsFunc(all, func(f *status.Forward) bool { return o.isLocalhost(f, port) })
}

// claim is the forward that waits for a port of the host; nil if none does.
func (all rows) claim(port uint16) *status.Forward {
	for _, f := range all {
		if f.State == status.Claim && f.OnHost(port) {
			return f
		}
	}
	return nil
}

// keptIn reports whether the host's rules, or its user, keep the port in the VM.
func keptIn(f *status.Forward) bool {
	return f.State == status.Ignored && (f.Reason == "ignored by "+f.Rule || f.Reason == status.Released)
}

func atLoopback(text string) bool {
	at, err := netip.ParseAddrPort(text)
	return err == nil && (at.Addr().IsUnspecified() || at.Addr().IsLoopback())
}

// hasForward reports whether a VM has a forward of TCP that is so.
func (o *Opener) hasForward(vm string, is func(*status.Forward) bool) bool {
	for st := range o.VMs(status.Query{VM: vm}) {
		for i := range st.Forwards {
			if f := &st.Forwards[i]; f.Proto == "tcp" && !f.Reverse && is(f) {
				return true
			}
		}
	}
	return false
}

// finds reports whether a target is a forward by its name, or by an address where that takes connections.
func (t *target) finds(f *status.Forward) bool {
	return slices.Contains(f.URLs, "http://"+t.at()+"/") || t.addr.IsValid() && listensAt(f, t.addr.Unmap(), t.port)
}

// isOwn reports whether a target on loopback is a forward of the VM's, by its address or by its name.
func (o *Opener) isOwn(vm string, t *target) bool {
	return o.hasForward(vm, func(f *status.Forward) bool { return t.finds(f) || t.onLocalhost() && o.isLocalhost(f, t.port) })
}

// portsFor are the ports of localhost that a page needs to send its user back. What it finds at the VM's own name or
// address needs none; at localhost it is the port of the VM that a program waits on, whatever else is forwarded there.
func (o *Opener) portsFor(vm string, t *target) (ports []uint16, err error) {
	for _, c := range t.callbacks {
		switch {
		case !slices.Contains(localhosts, c.addr.Unmap()) && o.hasForward(vm, c.finds):
		case !c.onLocalhost():
			return nil, refuse("%s: %s is this host, but neither localhost nor a port of this VM", redirectKey, c.at())
		case !slices.Contains(ports, c.port):
			ports = append(ports, c.port)
		}
	}
	return ports, nil
}

// check says why a URL cannot be opened for a VM, before anybody is asked about it.
func (o *Opener) check(ctx context.Context, vm string, t *target) error {
	ports, err := o.portsFor(vm, t)
	if err != nil {
		return err
	}
	for _, port := range ports {
		if err := o.canBringOut(ctx, vm, port); err != nil {
			return err
		}
	}
	if t.place != loopback || o.isOwn(vm, t) {
		return nil
	}
	if !t.onLocalhost() {
		return refuse("%s is this host's own, and no port of this VM", t.at())
	}
	return o.canBringOut(ctx, vm, t.port)
}

// canBringOut says why a port cannot be brought out to localhost; nil also where it is there.
func (o *Opener) canBringOut(ctx context.Context, vm string, port uint16) error {
	var own rows
	for end := time.Now().Add(announcedWithin); ; {
		if own = o.rowsOf(vm, port); own != nil {
			break
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return refuse("port %d of localhost is no port on which this VM listens", port)
		}
		time.Sleep(lookEvery)
	}
	if o.onLocalhost(own, port) {
		return nil
	}
	switch {
	case port < firstPort:
		return refuse("port %d of localhost is below %d, and such a port stays in the VM", port, firstPort)
	case slices.ContainsFunc(own, keptIn):
		return refuse("port %d of localhost is kept in the VM by the host's rules", port)
	case own.claim(port) != nil, slices.ContainsFunc(own, func(f *status.Forward) bool { return listensAt(f, localhosts[0], port) }):
		return refuse("port %d of localhost is taken on the host", port)
	}
	for st := range o.VMs(status.Query{Port: port}) {
		for i := range st.Forwards {
			other := &st.Forwards[i]
			if st.Name == vm && other.Port == port || other.Proto != "tcp" || other.Reverse {
				continue
			}
			if listensAt(other, localhosts[0], port) || listensAt(other, localhosts[1], port) {
				return refuse("port %d of localhost is taken on the host, by another port or another VM", port)
			}
		}
	}
	for _, ip := range localhosts {
		listens := func(f *status.Forward) bool { return listensAt(f, ip, port) }
		if !slices.ContainsFunc(own, listens) && !o.Vacant(netip.AddrPortFrom(ip, port)) {
			return refuse("port %d of localhost is taken on the host", port)
		}
	}
	return nil
}

// bringOut has a port of a VM at the same port of localhost, and leaves it there for a while. It returns what it has
// added for that; nil if nothing.
func (o *Opener) bringOut(ctx context.Context, vm string, port uint16) (*brought, error) {
	o.mu.Lock()
	v := o.of(vm)
	o.mu.Unlock()
	v.turn <- struct{}{}
	defer func() { <-v.turn }()
	var added *brought
	switch b := v.ports[port]; {
	case b != nil && o.added(vm, port, b.at) && b.end.Stop():
		b.shared = true
		b.end.Reset(broughtFor)
		o.mayStay(b.at, time.Now().Add(broughtFor))
	case b != nil: // the user has taken it back, or its time is over
		b.end.Stop()
		o.takeBack(v, vm, port, b)
	}
	if v.ports[port] == nil {
		if o.onLocalhost(o.rowsOf(vm, port), port) {
			return nil, nil
		}
		if err := o.add(v, vm, port); err != nil {
			return nil, err
		}
		added = v.ports[port]
	}
	for end := time.Now().Add(announcedWithin); ; time.Sleep(lookEvery) {
		own := o.rowsOf(vm, port)
		if o.onLocalhost(own, port) {
			return added, nil
		}
		if f := own.claim(port); f != nil || time.Now().After(end) || ctx.Err() != nil {
			b := v.ports[port]
			b.end.Stop()
			o.takeBack(v, vm, port, b)
			if f != nil {
				o.Log.Warn("a port of the VM is not brought out", "vm", vm, "port", port, "reason", f.Reason)
			}
			return nil, refuse("port %d of localhost is taken on the host", port)
		}
	}
}

// abandon takes back what was brought out for a page that was not opened, unless another page needs it too.
func (o *Opener) abandon(vm string, all []*brought) {
	o.mu.Lock()
	v := o.of(vm)
	o.mu.Unlock()
	v.turn <- struct{}{}
	defer func() { <-v.turn }()
	for _, b := range all {
		if v.ports[b.port] == b && !b.shared {
			b.end.Stop()
			o.takeBack(v, vm, b.port, b)
		}
	}
}

// added reports whether a rule that was added is there still: the user may have taken it back.
func (o *Opener) added(vm string, port uint16, at time.Time) bool {
	all, err := o.Forwards(vm)
	text := fmt.Sprint(port)
	return err == nil && slices.ContainsFunc(all, func(a status.Added) bool {
		return a.Proto == "tcp" && a.Host == text && a.Guest == text && a.AddedAt.Equal(at)
	})
}

// add has a rule for a port, until its time is over. It needs the VM's turn.
func (o *Opener) add(v *ofVM, vm string, port uint16) error {
	if len(v.ports) >= maxBrought {
		return refuse("%d ports of the VM are brought out already", len(v.ports))
	}
	st, err := o.AddForward(vm, fmt.Sprint(port), "tcp", 0)
	if err != nil {
		o.Log.Warn("a port of the VM is not brought out", "vm", vm, "port", port, "error", err)
		return refuse("port %d of localhost cannot be brought out, or is another port's of the VM", port)
	}
	b := &brought{port: port, at: st.AddedAt}
	b.end = time.AfterFunc(broughtFor, func() {
		o.spawn(func(context.Context) {
			v.turn <- struct{}{}
			defer func() { <-v.turn }()
			if v.ports[port] == b {
				o.takeBack(v, vm, port, b)
			}
		})
	})
	v.ports[port] = b
	o.mayStay(b.at, time.Now().Add(broughtFor))
	o.Log.Info("a port of the VM is brought out for the answer of a page", "vm", vm, "port", port, "for", broughtFor)
	return nil
}

// takeBack ends what was brought out. It needs the VM's turn.
func (o *Opener) takeBack(v *ofVM, vm string, port uint16, b *brought) {
	delete(v.ports, port)
	o.mayStay(b.at, time.Time{})
	if o.added(vm, port, b.at) {
		_, _ = o.RemoveForward(vm, fmt.Sprint(port), "tcp") // else it has just gone
	}
}
