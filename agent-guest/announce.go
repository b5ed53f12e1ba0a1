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
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/announce"
)

const (
	// maxTranslated bounds the ports that are announced although nothing listens there,
	// and maxRange those of one rule.
	maxTranslated, maxRange = 512, 64
	// addressesEvery is how often it is looked which address of this machine leads there.
	addressesEvery = 30 * time.Second
)

// announcer joins what listens here and what the packet filter translates.
type announcer struct {
	watcher *portwatch.Watcher
	log     *slog.Logger
	pending chan struct{} // has a token when translations have changed

	mu           sync.Mutex
	translations []nat.Translation
	seen         uint64              // generation of the watcher
	published    []portlist.Listener // what translations are announced as
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
	select {
	case a.pending <- struct{}{}:
	default:
	}
}

// update makes what is announced what there is now. It reports whether any ports are
// translated.
func (a *announcer) update(state portwatch.State) (translates bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := announce.Announcement{Generation: a.now.Generation, Listeners: usable(state.Listeners)}
	if state.Err != nil {
		next.ScanError = state.Err.Error()
	} else if len(next.Listeners) < len(state.Listeners) && state.Listeners[0].Unusable == portwatch.LoopbackDown {
		next.ScanError = "only what the bridge reaches is served: " + portwatch.LoopbackDown
	}
	var translated []portlist.Listener
	if len(a.translations) > 0 {
		translated = published(a.translations, state.Listeners, ownAddresses())
	}
	if state.Generation != a.seen || state.Generation > 0 && !slices.Equal(translated, a.published) {
		next.Generation++
	}
	a.seen, a.published = state.Generation, translated
	if len(translated) > 0 {
		next.Listeners = slices.Concat(next.Listeners, translated)
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

// published are translations as listeners, at an address of this machine to which they
// apply. That is not loopback's, unless they say so: from there the kernel lets nothing out
// to others. A port at which something listens is that, and not another.
func published(all []nat.Translation, listening []portlist.Listener, own []netip.Prefix) (out []portlist.Listener) {
	type port struct {
		proto string
		port  uint16
	}
	taken := make(map[port]bool)
	for _, l := range listening {
		taken[port{l.Proto, l.Addr.Port()}] = true
	}
	for _, t := range all {
		at := t.Addr
		if !at.IsValid() {
			at = addressFor(t.To.Addr(), own)
		}
		if !at.IsValid() || int(t.Last)-int(t.First) >= maxRange || !slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr() == at }) {
			continue
		}
		for n := int(t.First); n <= int(t.Last) && len(out) < maxTranslated; n++ {
			p := port{t.Proto, uint16(n)}
			if n == 0 || taken[p] {
				continue
			}
			taken[p] = true
			to := t.To
			if to.Port() == 0 {
				to = netip.AddrPortFrom(to.Addr(), p.port)
			}
			out = append(out, portlist.Listener{Proto: t.Proto, Addr: netip.AddrPortFrom(at, p.port), Process: fmt.Sprintf("dnat to %v", to)})
		}
	}
	return out
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
