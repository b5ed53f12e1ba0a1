package excerpt

import (
	"cmp"
	"iter"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Rank is what decides which forwards are shown before others: those that should be seen to,
// then those of programs and rules that have few, for a port among a thousand says little.
type Rank struct {
	State string // one of package status
	// NoRoom: it is denied because its VM, user or program has too many ports. One program may
	// have thousands of those, so they come with that program's others, at their head.
	NoRoom  bool
	Failing bool // its connections fail
	Ports   int  // how many its program or rule has
}

// Compare is negative if r is shown before o.
func (r Rank) Compare(o Rank) int {
	return cmp.Or(cmp.Compare(r.urgency(), o.urgency()), cmp.Compare(r.Ports, o.Ports), first(r.NoRoom, o.NoRoom))
}

// urgency is lower for what should be seen to.
func (r Rank) urgency() int {
	switch {
	case r.State == status.Claim, r.State == status.Denied && !r.NoRoom:
		return 0
	case r.Failing:
		return 1
	}
	return 2
}

// first puts what is true before what is not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// Choice are the forwards of a VM that are shown where there are more than are wanted, and how
// many others there are by state.
type Choice[T any] struct {
	Shown  []T
	Others map[string]int // not to be changed
	of     int            // how many it was made of
	at     time.Time
	stale  bool
}

// ranked is a forward with its rank, which takes longer to find out than to compare.
type ranked[T any] struct {
	of   T
	rank Rank
}

// Choose chooses n of all by rank. compare orders those of the same.
func Choose[T any](all iter.Seq[T], n int, rank func(T) Rank, compare func(a, b T) int) *Choice[T] {
	c := &Choice[T]{Others: make(map[string]int), at: time.Now()}
	each := func(yield func(ranked[T]) bool) {
		for x := range all {
			c.of++
			if !yield(ranked[T]{x, rank(x)}) {
				return
			}
		}
	}
	for _, r := range Least(each, n, func(a, b ranked[T]) int {
		return cmp.Or(a.rank.Compare(b.rank), compare(a.of, b.of))
	}, func(r ranked[T]) { c.Others[r.rank.State]++ }) {
		c.Shown = append(c.Shown, r.of)
	}
	return c
}

// lasts is how long a choice is good for while no state changes: that connections fail
// changes none.
const lasts = time.Second

// lastsStale is, for each forward that a choice was made of, how long it is good for although
// states have changed, where they go on changing.
const lastsStale = 50 * time.Microsecond

// Stale says that states have changed since the choice was made. It may be nil.
func (c *Choice[T]) Stale() {
	if c != nil {
		c.stale = true
	}
}

// Good reports whether the choice is one of n forwards and not too old; none is not. While
// states go on changing, one of thousands may be a little older than the last change.
func (c *Choice[T]) Good(n int, changing bool) bool {
	if c == nil || len(c.Shown) != n || c.stale && !changing {
		return false
	}
	most := lasts
	if c.stale {
		most = min(lasts, time.Duration(c.of)*lastsStale)
	}
	return time.Since(c.at) < most
}
