package peerlog

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Burst is how many lines of one VM are logged at a time, PerMinute how many a
	// minute for long.
	Burst     = 60
	PerMinute = 30
	// maxPeers bounds how many budgets are kept. A name beyond that shares one.
	maxPeers = 1024
)

// NewHandler returns a handler that passes to next what is within the budget of the peer
// that a line is about, which the attribute of that key names. Lines about none have
// budgets by their message. Those below info are asked for by who debugs, and pass.
func NewHandler(next slog.Handler, key string) slog.Handler {
	return &handler{Handler: next, key: key, budgets: &budgets{peers: make(map[string]*budget)}}
}

type handler struct {
	slog.Handler
	key     string
	peer    string // of the attributes that all lines have
	budgets *budgets
}

type budgets struct {
	mu    sync.Mutex
	peers map[string]*budget
}

type budget struct {
	lines   *rate.Limiter
	dropped int
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.Handler = h.Handler.WithAttrs(attrs)
	for _, a := range attrs {
		if a.Key == h.key {
			c.peer = a.Value.String()
		}
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	c.Handler = h.Handler.WithGroup(name)
	return &c
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return h.Handler.Handle(ctx, r)
	}
	missed, ok := h.budgets.take(h.of(r), r.Time)
	if !ok {
		return nil
	}
	if missed > 0 {
		summary := slog.NewRecord(r.Time, slog.LevelWarn, fmt.Sprintf("%d more lines like these were left out", missed), r.PC)
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == h.key {
				summary.AddAttrs(a)
			}
			return true
		})
		if err := h.Handler.Handle(ctx, summary); err != nil {
			return err
		}
	}
	return h.Handler.Handle(ctx, r)
}

// of is whose budget a line counts towards.
func (h *handler) of(r slog.Record) string {
	peer := h.peer
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == h.key {
			peer = a.Value.String()
		}
		return true
	})
	if peer != "" {
		return h.key + " " + peer
	}
	return r.Message
}

// take takes a line out of a budget. missed is how many there was no room for since
// the last one.
func (b *budgets) take(peer string, now time.Time) (missed int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[peer]
	if p == nil {
		if len(b.peers) >= maxPeers {
			peer = "" // shared by all that are too many
			p = b.peers[peer]
		}
		if p == nil {
			p = &budget{lines: rate.NewLimiter(rate.Every(time.Minute/PerMinute), Burst)}
			b.peers[peer] = p
		}
	}
	lines := 1
	if p.dropped > 0 {
		lines = 2 // one says so
	}
	if !p.lines.AllowN(now, lines) {
		p.dropped++
		return 0, false
	}
	missed, p.dropped = p.dropped, 0
	return missed, true
}
