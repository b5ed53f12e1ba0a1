package portlist

import (
	"cmp"
	"slices"
	"strings"
)

// Compare orders listeners by protocol, port and address. Two listeners that
// compare as equal are the same socket address, whoever owns it.
func Compare(a, b Listener) int {
	if c := strings.Compare(a.Proto, b.Proto); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Addr.Port(), b.Addr.Port()); c != 0 {
		return c
	}
	return a.Addr.Addr().Compare(b.Addr.Addr())
}

// Has reports whether a listener is among others, which are sorted, whoever owns it.
func Has(sorted []Listener, l Listener) bool {
	_, is := slices.BinarySearchFunc(sorted, l, Compare)
	return is
}

// Diff tells how to get from one picture to a later one; both must be sorted
// as Scan returns them. removed holds the listeners whose protocol and address
// are gone. added holds the new ones, and those that stay but have another
// Process or Program: who applies a difference replaces by protocol and address.
func Diff(before, after []Listener) (added, removed []Listener) {
	// Of thousands one has changed, mostly.
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1] == after[len(after)-1] {
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	plus, minus := 0, 0
	walk(before, after, func(Listener) { plus++ }, func(Listener) { minus++ })
	// Exactly so many: a peer may send thousands again and again.
	added, removed = make([]Listener, 0, plus), make([]Listener, 0, minus)
	walk(before, after, func(l Listener) { added = append(added, l) }, func(l Listener) { removed = append(removed, l) })
	return added, removed
}

// walk tells in order what is added and removed.
func walk(before, after []Listener, added, removed func(Listener)) {
	for len(before) > 0 || len(after) > 0 {
		c := 0
		switch {
		case len(before) == 0:
			c = 1
		case len(after) == 0:
			c = -1
		default:
			c = Compare(before[0], after[0])
		}
		switch {
		case c < 0:
			removed(before[0])
			before = before[1:]
		case c > 0:
			added(after[0])
			after = after[1:]
		default:
			if before[0] != after[0] {
				added(after[0])
			}
			before, after = before[1:], after[1:]
		}
	}
}
