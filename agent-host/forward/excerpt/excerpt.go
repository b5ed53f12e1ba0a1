// Package excerpt chooses which forwards are shown where there are more than are wanted. What
// they are is not its business.
package excerpt

import (
	"cmp"
	"iter"
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// FewRows is how many of its forwards each VM shows, however many VMs there are.
const FewRows = 10

// Sort orders forwards by protocol and port.
func Sort(shown []status.Forward) {
	slices.SortFunc(shown, func(a, b status.Forward) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port),
			cmp.Compare(a.State, b.State), slices.Compare(a.Host, b.Host))
	})
}

// Least are the n smallest of all, sorted; other is called for each of the rest. It is quicker
// than to sort thousands of which few are wanted.
func Least[T any](all iter.Seq[T], n int, compare func(a, b T) int, other func(T)) []T {
	some := make([]T, 0, n+1)
	for x := range all {
		if len(some) == n && (n == 0 || compare(x, some[n-1]) >= 0) {
			other(x)
			continue
		}
		at, _ := slices.BinarySearchFunc(some, x, compare)
		some = slices.Insert(some, at, x)
		if len(some) > n {
			other(some[n])
			some = some[:n]
		}
	}
	return some
}
