package relay

import "testing"

// Copies that wait keep their buffers: beyond a few they are small ones.
func TestBuffersOfManyCopiesAreSmall(t *testing.T) {
	b := newBuffers(1<<20, 2)
	var taken []*[]byte
	for range 4 {
		taken = append(taken, b.get())
	}
	for i, want := range []int{1 << 20, 1 << 20, smallBuffer, smallBuffer} {
		if got := len(*taken[i]); got != want {
			t.Errorf("buffer %d has %d bytes, want %d", i, got, want)
		}
	}
	for _, buf := range taken {
		b.put(buf)
	}
	if got := len(*b.get()); got != 1<<20 {
		t.Errorf("after all are back one has %d bytes", got)
	}
}
