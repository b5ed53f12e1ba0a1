package relay

import "sync"

// buffers are of one size as long as few are in use, and beyond that small: a copy that
// waits for who does not read keeps its buffer, and there may be thousands of those.
type buffers struct {
	room         chan struct{} // for large ones
	large, small sync.Pool
	size         int
}

const smallBuffer = 8 << 10

// newBuffers returns buffers of size bytes, as many as most at a time.
func newBuffers(size, most int) *buffers {
	of := func(n int) func() any { return func() any { b := make([]byte, n); return &b } }
	return &buffers{
		room: make(chan struct{}, most), size: size,
		large: sync.Pool{New: of(size)}, small: sync.Pool{New: of(smallBuffer)},
	}
}

func (b *buffers) get() *[]byte {
	select {
	case b.room <- struct{}{}:
		return b.large.Get().(*[]byte)
	default:
		return b.small.Get().(*[]byte)
	}
}

func (b *buffers) put(buf *[]byte) {
	if len(*buf) != b.size {
		b.small.Put(buf)
		return
	}
	b.large.Put(buf)
	<-b.room
}
