// Package byport keeps what a VM has for each key by its port, so that what happens at one of thousands of ports
// costs no look at the others.
package byport

import (
	"iter"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
)

// Map is a map by key. The zero value is empty. It has no lock of its own.
type Map[V any] struct {
	ports map[port][]entry[V] // mostly one of a port
	n     int
}

type port struct {
	proto  string
	number uint16
}

type entry[V any] struct {
	key   policy.Key
	value V
}

// Len is how many keys there are.
func (m *Map[V]) Len() int { return m.n }

// Get is what is there for a key; the zero value for nothing.
func (m *Map[V]) Get(k policy.Key) (v V) {
	for _, e := range m.ports[port{k.Proto, k.Port}] {
		if e.key == k {
			return e.value
		}
	}
	return v
}

// Set has something be there for a key.
func (m *Map[V]) Set(k policy.Key, v V) {
	m.Delete(k)
	if m.ports == nil {
		m.ports = make(map[port][]entry[V])
	}
	at := port{k.Proto, k.Port}
	m.ports[at] = append(m.ports[at], entry[V]{k, v})
	m.n++
}

// Delete has nothing be there for a key. It may be called while the map is ranged over.
func (m *Map[V]) Delete(k policy.Key) {
	at := port{k.Proto, k.Port}
	for i, e := range m.ports[at] {
		if e.key != k {
			continue
		}
		m.n--
		if len(m.ports[at]) == 1 {
			delete(m.ports, at)
			return
		}
		// A slice of its own: the other may be ranged over.
		m.ports[at] = append(append(make([]entry[V], 0, len(m.ports[at])-1), m.ports[at][:i]...), m.ports[at][i+1:]...)
		return
	}
}

// All ranges over everything.
func (m *Map[V]) All() iter.Seq2[policy.Key, V] {
	return func(yield func(policy.Key, V) bool) {
		for _, some := range m.ports {
			for _, e := range some {
				if !yield(e.key, e.value) {
					return
				}
			}
		}
	}
}

// On ranges over what is there for some ports.
func (m *Map[V]) On(of policy.Ports) iter.Seq2[policy.Key, V] {
	if of.All {
		return m.All()
	}
	return func(yield func(policy.Key, V) bool) {
		for proto, number := range of.Each() {
			for _, e := range m.ports[port{proto, number}] {
				if !yield(e.key, e.value) {
					return
				}
			}
		}
	}
}
