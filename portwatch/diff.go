package portwatch

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

// Diff tells how to get from one picture to a later one; both must be sorted
// as Scan returns them. removed holds the listeners whose protocol and address
// are gone. added holds the new ones, and those that stay but have another
// Process or Program: who applies a difference replaces by protocol and address.
func Diff(before, after []Listener) (added, removed []Listener) {
	for len(before) > 0 && len(after) > 0 {
		switch c := Compare(before[0], after[0]); {
		case c < 0:
			removed = append(removed, before[0])
			before = before[1:]
		case c > 0:
			added = append(added, after[0])
			after = after[1:]
		default:
			if before[0] != after[0] {
				added = append(added, after[0])
			}
			before, after = before[1:], after[1:]
		}
	}
	return slices.Concat(added, after), slices.Concat(removed, before)
}
