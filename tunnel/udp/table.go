package udp

import "container/list"

// flowTable keeps UDP flows in the order of their last use. When it is full, one
// that was never answered makes room before any other, and one that has been idle
// for longer before one that was in use.
type flowTable[K comparable, V any] struct {
	max     int
	entries map[K]*list.Element
	// Either is in the order of last use, the oldest first.
	unanswered, answered list.List
}

type flowEntry[K comparable, V any] struct {
	key      K
	value    V
	answered bool
}

// newFlowTable returns a table of at most limit flows.
func newFlowTable[K comparable, V any](limit int) *flowTable[K, V] {
	return &flowTable[K, V]{max: limit, entries: make(map[K]*list.Element)}
}

// get returns a flow that is in use now.
func (t *flowTable[K, V]) get(k K) (v V, ok bool) {
	e := t.entries[k]
	if e == nil {
		return v, false
	}
	f := e.Value.(*flowEntry[K, V])
	t.listOf(f).MoveToBack(e)
	return f.value, true
}

// answer is get for a flow that is used because of an answer.
func (t *flowTable[K, V]) answer(k K) (v V, ok bool) {
	if e := t.entries[k]; e != nil {
		if f := e.Value.(*flowEntry[K, V]); !f.answered {
			t.unanswered.Remove(e)
			f.answered = true
			t.entries[k] = t.answered.PushBack(f)
		}
	}
	return t.get(k)
}

// add adds a flow that is not there yet, and returns the one that made room for it.
func (t *flowTable[K, V]) add(k K, v V) (evictedKey K, evicted V, ok bool) {
	if len(t.entries) >= t.max {
		oldest := t.unanswered.Front()
		if oldest == nil {
			oldest = t.answered.Front()
		}
		evictedKey = oldest.Value.(*flowEntry[K, V]).key
		evicted, ok = t.drop(oldest), true
	}
	t.entries[k] = t.unanswered.PushBack(&flowEntry[K, V]{key: k, value: v})
	return evictedKey, evicted, ok
}

// remove removes a flow and returns it.
func (t *flowTable[K, V]) remove(k K) (v V, ok bool) {
	if e := t.entries[k]; e != nil {
		return t.drop(e), true
	}
	return v, false
}

// clear removes all flows and returns them.
func (t *flowTable[K, V]) clear() (removed []V) {
	for _, e := range t.entries {
		removed = append(removed, t.drop(e))
	}
	return removed
}

func (t *flowTable[K, V]) listOf(f *flowEntry[K, V]) *list.List {
	if f.answered {
		return &t.answered
	}
	return &t.unanswered
}

func (t *flowTable[K, V]) drop(e *list.Element) V {
	f := e.Value.(*flowEntry[K, V])
	t.listOf(f).Remove(e)
	delete(t.entries, f.key)
	return f.value
}
