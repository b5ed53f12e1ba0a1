package excerpt

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTheLeastOfManyAreWhatSortingGives(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		all := make([]int, dice.IntN(50))
		for i := range all {
			all[i] = dice.IntN(40)
		}
		n := dice.IntN(len(all) + 1)
		want := slices.Sorted(slices.Values(all))
		var others []int
		got := Least(slices.Values(all), n, cmp.Compare, func(x int) { others = append(others, x) })
		if !slices.Equal(got, want[:n]) || !slices.Equal(slices.Sorted(slices.Values(append(got, others...))), want) {
			t.Fatalf("the first %d of %v: %v", n, all, got)
		}
	}
}
