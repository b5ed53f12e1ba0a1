package events

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Kept is how many events of a VM are remembered, and so many may come at a time.
	Kept = 256
	// perSecond is how many a VM may have for long.
	perSecond = 2
	// leftOutAfter is when those are told that were left out, which joins them.
	leftOutAfter = time.Second
	// maxVMs is how many VMs have a history; of more, the one where nothing happened for
	// longest is forgotten.
	maxVMs = 256
)

// History is what happened. Its methods may be called by several goroutines at once; those of
// a nil History do nothing.
type History struct {
	mu      sync.Mutex
	first   uint64 // the first cursor of this run
	next    uint64
	vms     map[string]*ofVM
	held    map[subject]Event // they wait for a name
	changed chan struct{}     // closed with the next event; nil while nobody waits for it
}

// ofVM is the history of a VM, or of what has to do with none.
type ofVM struct {
	kept    []Event // a ring, once it is full
	oldest  int
	budget  *rate.Limiter
	leftOut uint64
	held    int // events that wait
}

// New returns an empty history. Its cursors come after those of earlier runs.
func New() *History {
	first := uint64(time.Now().UnixMilli()) * 1000
	return &History{first: first, next: first, vms: make(map[string]*ofVM), held: make(map[subject]Event)}
}

// Publish takes in an event, and gives it its cursor and, if it has none, its time. It waits
// for nobody; an event that lacks a process is kept back for a moment, for [History.Named].
func (h *History) Publish(e Event) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.letGo(e.subject(), "") // which was before
	if e.ofVM() {
		for about := range h.held {
			if about.vm == e.VM {
				h.letGo(about, "")
			}
		}
	}
	if !e.nameless() || !h.hold(e) {
		h.take(e)
	}
}

// take needs h.mu.
func (h *History) take(e Event) {
	v := h.of(e.VM)
	if v.budget.Allow() {
		h.add(v, e)
		return
	}
	if v.leftOut++; v.leftOut == 1 {
		time.AfterFunc(leftOutAfter, func() { h.tellLeftOut(e.VM) })
	}
}

// of needs h.mu.
func (h *History) of(vm string) *ofVM {
	v := h.vms[vm]
	if v == nil {
		h.forget()
		v = &ofVM{budget: rate.NewLimiter(perSecond, Kept)}
		h.vms[vm] = v
	}
	return v
}

// forget makes room for a VM.
func (h *History) forget() {
	if len(h.vms) < maxVMs {
		return
	}
	quietest, last := "", h.next
	for name, v := range h.vms {
		if at := v.last(); at < last {
			quietest, last = name, at
		}
	}
	delete(h.vms, quietest)
}

// last is the cursor of the VM's newest event; 0 for none.
func (v *ofVM) last() uint64 {
	if len(v.kept) == 0 {
		return 0
	}
	return v.kept[(v.oldest+len(v.kept)-1)%len(v.kept)].Cursor
}

func (h *History) tellLeftOut(vm string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.vms[vm]; v != nil && v.leftOut > 0 {
		n := v.leftOut
		v.leftOut = 0
		h.add(v, Event{Kind: LeftOut, VM: vm, Count: n, Words: fmt.Sprintf("%d more like it", n)})
	}
}

// add needs h.mu.
func (h *History) add(v *ofVM, e Event) {
	e.Cursor = h.next
	h.next++
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.bound()
	if len(v.kept) < Kept {
		v.kept = append(v.kept, e)
	} else {
		v.kept[v.oldest] = e
		v.oldest = (v.oldest + 1) % Kept
	}
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// Now is the cursor of the newest event.
func (h *History) Now() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next - 1
}

// At is the cursor of the newest event before that time.
func (h *History) At(t time.Time) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.after(h.first - 1) {
		if !e.Time.Before(t) {
			return e.Cursor - 1
		}
	}
	return h.next - 1
}

// after are those behind a cursor that are remembered, oldest first. It needs h.mu.
func (h *History) after(cursor uint64) (all []Event) {
	for _, v := range h.vms {
		if v.last() <= cursor {
			continue
		}
		for i := range v.kept {
			if e := v.kept[(v.oldest+i)%len(v.kept)]; e.Cursor > cursor {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(a.Cursor, b.Cursor) })
	return all
}

// Last is the newest event of those kinds about a port; false for none.
func (h *History) Last(vm, proto string, port uint16, kinds ...string) (last Event, found bool) {
	if h == nil {
		return Event{}, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.vms[vm]; v != nil {
		for _, e := range v.kept {
			if e.Proto == proto && e.Port == port && e.Cursor > last.Cursor && slices.Contains(kinds, e.Kind) {
				last, found = e, true
			}
		}
	}
	return last, found
}
