package tunnel

import (
	"container/list"
	"time"
)

// Idle times of UDP flows. A question that nobody answers is soon forgotten;
// the other is what browsers and games expect of a NAT at least.
const (
	UDPUnanswered = 10 * time.Second
	UDPIdle       = 90 * time.Second
)

// FlowTable keeps UDP flows, which nobody ends: each goes when it has been idle
// for too long, or when the table is full and a new one needs its place.
// It knows no clock and takes no lock.
type FlowTable[K comparable, V any] struct {
	max     int
	entries map[K]*list.Element
	// Either is in the order of last use, the oldest first.
	unanswered, answered list.List
}

type flowEntry[K comparable, V any] struct {
	key      K
	value    V
	used     time.Time
	answered bool
}

// NewFlowTable returns a table of at most limit flows.
func NewFlowTable[K comparable, V any](limit int) *FlowTable[K, V] {
	return &FlowTable[K, V]{max: limit, entries: make(map[K]*list.Element)}
}

// Len is the number of flows.
func (t *FlowTable[K, V]) Len() int { return len(t.entries) }

// Get returns a flow that is in use now.
func (t *FlowTable[K, V]) Get(k K, now time.Time) (v V, ok bool) {
	e := t.entries[k]
	if e == nil {
		return v, false
	}
	f := e.Value.(*flowEntry[K, V])
	f.used = now
	t.listOf(f).MoveToBack(e)
	return f.value, true
}

// Answered is Get for a flow that is used because of an answer.
func (t *FlowTable[K, V]) Answered(k K, now time.Time) (v V, ok bool) {
	if e := t.entries[k]; e != nil {
		if f := e.Value.(*flowEntry[K, V]); !f.answered {
			t.unanswered.Remove(e)
			f.answered = true
			t.entries[k] = t.answered.PushBack(f)
		}
	}
	return t.Get(k, now)
}

// Add adds a flow that is not there yet. If the table is full, the flow that has
// been idle longest goes and is returned; one that was never answered goes before
// any other.
func (t *FlowTable[K, V]) Add(k K, v V, now time.Time) (evicted V, ok bool) {
	if len(t.entries) >= t.max {
		oldest := t.unanswered.Front()
		if oldest == nil {
			oldest = t.answered.Front()
		}
		evicted, ok = t.remove(oldest), true
	}
	t.entries[k] = t.unanswered.PushBack(&flowEntry[K, V]{key: k, value: v, used: now})
	return evicted, ok
}

// Remove removes a flow and returns it.
func (t *FlowTable[K, V]) Remove(k K) (v V, ok bool) {
	if e := t.entries[k]; e != nil {
		return t.remove(e), true
	}
	return v, false
}

// RemoveIf removes the flows that match and returns them.
func (t *FlowTable[K, V]) RemoveIf(match func(K) bool) (removed []V) {
	for k, e := range t.entries {
		if match(k) {
			removed = append(removed, t.remove(e))
		}
	}
	return removed
}

// Expire removes the flows whose time is over and returns them.
func (t *FlowTable[K, V]) Expire(now time.Time) (expired []V) {
	for l, idle := range map[*list.List]time.Duration{&t.unanswered: UDPUnanswered, &t.answered: UDPIdle} {
		for e := l.Front(); e != nil && now.Sub(e.Value.(*flowEntry[K, V]).used) >= idle; e = l.Front() {
			expired = append(expired, t.remove(e))
		}
	}
	return expired
}

func (t *FlowTable[K, V]) listOf(f *flowEntry[K, V]) *list.List {
	if f.answered {
		return &t.answered
	}
	return &t.unanswered
}

func (t *FlowTable[K, V]) remove(e *list.Element) V {
	f := e.Value.(*flowEntry[K, V])
	t.listOf(f).Remove(e)
	delete(t.entries, f.key)
	return f.value
}
