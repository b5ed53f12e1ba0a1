package guestagent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/nat"
	"github.com/rum-vm/rum-agent/portwatch/netns"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/announce"
)

const (
	// maxTranslated bounds the ports that are announced although nothing listens there,
	// and maxRange those of one rule.
	maxTranslated, maxRange = 512, 64
	// addressesEvery is how often it is looked which address of this machine leads there.
	addressesEvery = 30 * time.Second
	// namespacesEvery is how often other namespaces are looked into although nothing is
	// told, and namespacesPolled where the kernel does not tell.
	namespacesEvery, namespacesPolled = 5 * time.Second, time.Second
)

// announcer joins what listens here, what the packet filter translates, and what listens
// in other network namespaces.
type announcer struct {
	watcher *portwatch.Watcher
	log     *slog.Logger
	pending chan struct{} // has a token when translations or contained have changed
	// elsewhere has a token when something happened in another namespace; nil where those
	// are not looked into.
	elsewhere <-chan struct{}

	mu           sync.Mutex
	translations []nat.Translation
	contained    []portlist.Listener // in other namespaces
	seen         uint64              // generation of the watcher
	published    []portlist.Listener // what is announced of translations and contained
	now          announce.Announcement
	changed      chan struct{}
}

func newAnnouncer(w *portwatch.Watcher, log *slog.Logger) *announcer {
	return &announcer{watcher: w, log: log, pending: make(chan struct{}, 1), changed: make(chan struct{})}
}

// source is a [tunnel.Server]'s.
func (a *announcer) source() (announce.Announcement, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now, a.changed
}

// run watches until ctx ends.
func (a *announcer) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.watcher.Run(ctx) })
	g.Go(func() error { nat.Watch(ctx, a.translated); return nil })
	if a.elsewhere != nil {
		g.Go(func() error {
			netns.Watch(ctx, containerNetworks, a.elsewhere, a.namespacesPause, a.inside)
			return nil
		})
	}
	g.Go(func() error {
		for {
			state, changed := a.watcher.State()
			var later <-chan time.Time
			if a.update(state) {
				later = time.After(addressesEvery)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-a.pending:
			case <-later:
			}
		}
	})
	return g.Wait()
}

// translated takes over what the packet filter does.
func (a *announcer) translated(all []nat.Translation, unclear []string, err error) {
	if err != nil {
		a.log.Warn("not all ports that are translated are announced", "error", err)
	}
	for _, rule := range unclear {
		a.log.Warn("a rule of the packet filter is not understood, and its ports not announced", "rule", rule)
	}
	a.mu.Lock()
	a.translations = all
	a.mu.Unlock()
	a.again()
}

// inside takes over what listens in other namespaces.
func (a *announcer) inside(all []portlist.Listener) {
	a.mu.Lock()
	a.contained = all
	a.mu.Unlock()
	a.again()
}

// contains reports whether an address is announced besides what listens here, as those of
// other namespaces are.
func (a *announcer) contains(addr netip.AddrPort) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.published, func(l portlist.Listener) bool { return l.Addr == addr })
}

// namespacesPause is the time between two looks at other namespaces.
func (a *announcer) namespacesPause() time.Duration {
	if state, _ := a.watcher.State(); state.Sources.TCP == portwatch.SourceEBPF && state.Sources.UDP == portwatch.SourceEBPF {
		return namespacesEvery
	}
	return namespacesPolled
}

// again has what is announced made anew.
func (a *announcer) again() {
	select {
	case a.pending <- struct{}{}:
	default:
	}
}

// update makes what is announced what there is now. It reports whether it is to be made anew
// after a while, since addresses of this machine matter.
func (a *announcer) update(state portwatch.State) (again bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := announce.Announcement{Generation: a.now.Generation, Listeners: usable(state.Listeners)}
	if state.Err != nil {
		next.ScanError = state.Err.Error()
	} else if len(next.Listeners) < len(state.Listeners) && state.Listeners[0].Unusable == portwatch.LoopbackDown {
		next.ScanError = "only what the bridge reaches is served: " + portwatch.LoopbackDown
	} else if len(state.Over) > 0 {
		next.ScanError = fmt.Sprintf("user %d listens at more than %d addresses; the others are not announced", state.Over[0], portlist.MaxOfUser)
	}
	more := others{taken: make(map[listenerPort]bool)}
	if len(a.translations)+len(a.contained) > 0 {
		more.take(state.Listeners)
		more.publish(a.translations, ownAddresses())
		more.contain(a.contained)
	}
	if state.Generation != a.seen || state.Generation > 0 && !slices.Equal(more.all, a.published) {
		next.Generation++
	}
	a.seen, a.published = state.Generation, more.all
	if len(more.all) > 0 {
		next.Listeners = slices.Concat(next.Listeners, more.all)
	}
	if next.Generation != a.now.Generation || next.ScanError != a.now.ScanError {
		a.now = next
		close(a.changed)
		a.changed = make(chan struct{})
	}
	return len(a.translations) > 0
}

// usable leaves out what nobody can be connected to.
func usable(all []portlist.Listener) []portlist.Listener {
	if !slices.ContainsFunc(all, func(l portlist.Listener) bool { return l.Unusable != "" }) {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(l portlist.Listener) bool { return l.Unusable != "" })
}

// others are what is announced beside what listens here. A port at which something listens
// is that, and not another.
type others struct {
	all   []portlist.Listener
	taken map[listenerPort]bool
}

type listenerPort struct {
	proto string
	port  uint16
}

// take keeps others from the ports at which something listens here.
func (o *others) take(listening []portlist.Listener) {
	for _, l := range listening {
		o.taken[listenerPort{l.Proto, l.Addr.Port()}] = true
	}
}

// contain adds what listens in other namespaces, of a port that several have the first's.
func (o *others) contain(all []portlist.Listener) {
	for _, l := range all {
		if p := (listenerPort{l.Proto, l.Addr.Port()}); !o.taken[p] {
			o.taken[p] = true
			o.all = append(o.all, l)
		}
	}
}

// publish adds translations as listeners, at an address of this machine to which they
// apply. That is not loopback's, unless they say so: from there the kernel lets nothing out
// to others.
func (o *others) publish(all []nat.Translation, own []netip.Prefix) {
	for _, t := range all {
		at := t.Addr
		if !at.IsValid() {
			at = addressFor(t.To.Addr(), own)
		}
		if !at.IsValid() || int(t.Last)-int(t.First) >= maxRange || !slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr() == at }) {
			continue
		}
		for n := int(t.First); n <= int(t.Last) && len(o.all) < maxTranslated; n++ {
			p := listenerPort{t.Proto, uint16(n)}
			if n == 0 || o.taken[p] {
				continue
			}
			o.taken[p] = true
			to := t.To
			if to.Port() == 0 {
				to = netip.AddrPortFrom(to.Addr(), p.port)
			}
			o.all = append(o.all, portlist.Listener{Proto: t.Proto, Addr: netip.AddrPortFrom(at, p.port), Process: fmt.Sprintf("dnat to %v", to)})
		}
	}
}

// addressFor is an address of this machine from which what is at to is not a neighbour:
// one of a bridge that containers are on may be kept to these. The zero Addr for none.
func addressFor(to netip.Addr, own []netip.Prefix) (at netip.Addr) {
	for _, p := range own {
		if p.Addr().Is4() != to.Is4() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if !p.Masked().Contains(to) {
			return p.Addr()
		}
		if !at.IsValid() {
			at = p.Addr()
		}
	}
	return at
}

// ownAddresses are this machine's, with their networks, in the order of its interfaces.
func ownAddresses() (own []netip.Prefix) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // there will be another look
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()))
		}
	}
	return own
}

// containerNetworks are those in which containers may be that are led to: of the interfaces
// that programs have made, such as bridges. In the network of a card are other machines, and
// a container that gives itself the address of one is not to have it announced.
func containerNetworks() (networks []netip.Prefix) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil // there will be another look
	}
	kinds := linkKinds()
	for _, i := range interfaces {
		if kinds[i.Index] == "" {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				networks = append(networks, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()))
			}
		}
	}
	return networks
}
