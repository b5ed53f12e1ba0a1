package portwatch

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// port is what listeners are listed by: the sockets of both families.
type port struct {
	proto  string
	number uint16
}

func (p place) both() port            { return port{p.proto, p.port} }
func (s socket) both() port           { return s.place().both() }
func portOf(l portlist.Listener) port { return port{l.Proto, l.Addr.Port()} }
func (p port) compare(o port) int {
	return cmp.Or(strings.Compare(p.proto, o.proto), cmp.Compare(p.number, o.number))
}

// maxRelisted is up to how many ports are listed anew one by one; for more the whole
// list is cheaper.
const maxRelisted = 64

// showAll makes all rows of the kernel's tables known to those who follow, and reports
// whether that changed what they see. Then their processes are looked up.
func (w *Watcher) showAll(rows []socket) (changed bool) {
	w.showing.Lock()
	defer w.showing.Unlock()
	w.shown = make(map[port][]socket)
	w.keep(w.scanner.servers.only(rows))
	w.scanner.readEphemeral()
	changed = w.list()
	w.lookUp(changed)
	return changed
}

// forget is told which sockets are not there any more.
func (w *Watcher) forget(gone []socket) {
	w.showing.Lock()
	defer w.showing.Unlock()
	for _, s := range gone {
		if s.cookie != 0 {
			delete(w.scanner.servers, s.inode)
		}
	}
}

// show is showAll for some ports, of which rows are all. If that has changed anything,
// processes are looked up, and which ports are ephemeral is read again: whoever waits for
// a port would wait for that too.
func (w *Watcher) show(ports []port, rows []socket) (changed bool) {
	w.showing.Lock()
	defer w.showing.Unlock()
	for _, p := range ports {
		delete(w.shown, p)
	}
	w.keep(w.scanner.servers.among(rows, w.scanner.servers))
	if changed = w.relist(ports); changed {
		w.lookUp(true)
	}
	return changed
}

// keep needs w.showing.
func (w *Watcher) keep(sockets []socket) {
	for _, s := range sockets {
		w.shown[s.both()] = append(w.shown[s.both()], s)
	}
}

// lookUp has processes looked up: again and again for a while where the sockets are others than before.
func (w *Watcher) lookUp(changed bool) {
	if changed {
		w.unsettled.Store(true)
	}
	select {
	case w.nameless <- struct{}{}:
	default:
	}
}

// all is what is shown.
func (w *Watcher) all() (sockets []socket) {
	for _, some := range w.shown {
		sockets = append(sockets, some...)
	}
	return sockets
}

// list needs w.showing.
func (w *Watcher) list() (changed bool) {
	return w.update(w.scanner.list(w.all(), w.owners), nil)
}

// relist lists some ports anew. It needs w.showing.
func (w *Watcher) relist(ports []port) (changed bool) {
	if len(ports) > maxRelisted {
		return w.list()
	}
	var sockets []socket
	for _, p := range ports {
		sockets = append(sockets, w.shown[p]...)
	}
	listed := w.scanner.listMore(sockets, w.owners)
	w.mu.Lock()
	defer w.mu.Unlock()
	all, differ := w.state.Listeners, false
	for _, p := range ports {
		now := of(listed, p)
		if slices.Equal(of(all, p), now) {
			continue
		}
		if !differ {
			all, differ = slices.Concat(all, listed)[:len(all)], true // with room for them
		}
		from, to := span(all, p)
		all = slices.Replace(all, from, to, now...)
	}
	over := w.state.Over
	if differ {
		// Who has more than are listed has them still, or the next look at everything tells.
		var also []uint32
		all, also = portlist.Limit(all, w.state.Listeners)
		over = slices.Compact(slices.Sorted(slices.Values(slices.Concat(over, also))))
		differ = !slices.Equal(all, w.state.Listeners)
	}
	return w.set(all, over, differ, nil)
}

// span is where the listeners of a port are in a sorted list.
func span(all []portlist.Listener, p port) (from, to int) {
	from, _ = slices.BinarySearchFunc(all, p, func(l portlist.Listener, p port) int { return portOf(l).compare(p) })
	for to = from; to < len(all) && portOf(all[to]) == p; to++ {
	}
	return from, to
}

// of is the listeners of a port in a sorted list.
func of(all []portlist.Listener, p port) []portlist.Listener {
	from, to := span(all, p)
	return all[from:to]
}

// follow looks when the best source of events says so, and then the next best, until
// there is none any more: then the clock has to do.
func (w *Watcher) follow(ctx context.Context) error {
	for _, open := range w.sources {
		src, err := open()
		if src == nil {
			w.log.Debug("no events of sockets", "err", err)
			continue
		}
		tcp, udp := src.Of("tcp"), src.Of("udp")
		w.log.Info("watching sockets", "tcp", tcp, "udp", udp)
		if err != nil {
			w.log.Debug("not all events of sockets", "err", err)
		}
		w.setSources(Sources{TCP: tcp, UDP: udp})
		err = errors.Join(w.followTo(ctx, src), src.Close())
		if ctx.Err() != nil {
			return nil
		}
		w.log.Warn("events of sockets have ended", "err", err)
	}
	w.log.Info("watching sockets", "tcp", SourcePoll, "udp", SourcePoll)
	w.setSources(Sources{TCP: SourcePoll, UDP: SourcePoll})
	return w.poll(ctx)
}

// followTo looks when a source says so, until it fails or ctx ends.
func (w *Watcher) followTo(ctx context.Context, src source) error {
	ctx, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	others.Go(func() { w.nameAll(ctx) })
	others.Go(func() { w.watchNetworks(ctx, src) })
	return newFollower(w, src).run(ctx)
}

// ProbeSources finds out what would tell a Watcher of this process when to look.
func ProbeSources() Sources {
	for _, open := range bestSources(false) {
		if src, _ := open(); src != nil {
			defer src.Close()
			return Sources{TCP: src.Of("tcp"), UDP: src.Of("udp")}
		}
	}
	return Sources{TCP: SourcePoll, UDP: SourcePoll}
}
