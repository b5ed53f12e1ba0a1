package portwatch

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// show makes rows of the kernel's tables known to those who follow, and reports whether
// that was news to them. Then their processes are looked up, or if asked to.
func (w *Watcher) show(rows []socket, lookUp bool) bool {
	w.showing.Lock()
	w.sockets = w.scanner.servers.only(rows)
	w.showing.Unlock()
	news := w.showAgain()
	if news || lookUp {
		select {
		case w.nameless <- struct{}{}:
		default:
		}
	}
	return news
}

// showAgain is called where only names have changed.
func (w *Watcher) showAgain() bool {
	w.showing.Lock()
	defer w.showing.Unlock()
	return w.update(w.scanner.list(slices.Clone(w.sockets), w.owners), nil)
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
		tcp, udp := src.of("tcp"), src.of("udp")
		w.log.Info("watching sockets", "tcp", tcp, "udp", udp)
		if err != nil {
			w.log.Debug("not all events of sockets", "err", err)
		}
		w.setSources(Sources{TCP: tcp, UDP: udp})
		err = errors.Join(w.followTo(ctx, src), src.close())
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
	for _, open := range bestSources("") {
		if src, _ := open(); src != nil {
			defer src.close()
			return Sources{TCP: src.of("tcp"), UDP: src.of("udp")}
		}
	}
	return Sources{TCP: SourcePoll, UDP: SourcePoll}
}
