package udp

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// maxQueue bounds in bytes what waits for a datagram stream. As
	// much again may be in the write that is under way.
	maxQueue = 4 << 20
	// keptQueue is how large a buffer may be that is kept although
	// little was in it.
	keptQueue = 256 << 10
)

// queue holds the frames that wait for a stream. Adding never waits:
// what does not fit is dropped. What was added goes out with flush.
//
// A flow may have as much in the queue as is free beside. So one flow that sends
// more than the stream takes has half the queue, n of them have n/(n+1), and
// there is always room for one that sends little.
type queue struct {
	// flusher writes on the spot; nil while nobody serves the queue, or where a write may wait.
	flusher atomic.Pointer[carrier]
	ready   chan struct{} // has a token while there is something to write for write

	mu      sync.Mutex
	frames  []byte
	perFlow map[uint32]int     // bytes
	trouble map[uint32]trouble // to be reported
	ended   int                // flows whose end is among the frames
}

type trouble struct {
	lost   uint32
	reason string
}

// maxTroubled bounds the flows whose trouble waits to be reported, maxEnded those
// whose end does.
const (
	maxTroubled = 4096
	maxEnded    = 64 << 10
)

func newQueue() *queue {
	return &queue{
		perFlow: make(map[uint32]int), trouble: make(map[uint32]trouble), ready: make(chan struct{}, 1),
	}
}

// add queues a frame and reports whether there was room. It keeps nothing of
// the frame.
func (q *queue) add(f wire.DatagramFrame) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	free := maxQueue - len(q.frames)
	size := wire.DatagramHeader + 19 + len(f.Payload)
	fits := q.perFlow[f.Flow]+size <= free
	if fits {
		q.frames = f.Append(q.frames)
		q.perFlow[f.Flow] += size
	}
	return fits
}

// report queues word of lost datagrams, and has it go out. What is said of one flow
// before the first has been written is joined.
func (q *queue) report(flow, lost uint32, reason string) {
	q.mu.Lock()
	t, known := q.trouble[flow]
	if known || len(q.trouble) < maxTroubled {
		q.trouble[flow] = trouble{t.lost + lost, reason}
	}
	q.mu.Unlock()
	q.flush()
}

// end queues the end of a flow, for which there is always room beside what waits: the
// other end keeps the flow's socket until it knows. It goes out at once.
func (q *queue) end(flow uint32) {
	q.mu.Lock()
	if q.ended < maxEnded {
		q.ended++
		f := wire.DatagramFrame{Kind: wire.DatagramEnd, Flow: flow}
		q.frames = f.Append(q.frames)
	}
	q.mu.Unlock()
	q.flush()
}

// flush has what is queued go out.
func (q *queue) flush() {
	if c := q.flusher.Load(); c != nil {
		c.write()
		return
	}
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns all that is queued, and has the next frames written to free.
func (q *queue) take(free []byte) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.frames
	for flow, t := range q.trouble {
		f := wire.DatagramFrame{Kind: wire.DatagramTrouble, Flow: flow, Lost: t.lost, Reason: t.reason}
		batch = f.Append(batch)
	}
	q.ended = 0
	q.frames = free[:0]
	clear(q.perFlow)
	clear(q.trouble)
	return batch
}

// write sends what is queued until ctx ends, where a write may wait.
func (q *queue) write(ctx context.Context, w io.Writer) error {
	var free []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.ready:
		}
		batch := q.take(free)
		if _, err := w.Write(batch); err != nil {
			return err
		}
		free = kept(batch)
	}
}

// kept is a batch that was written, or nothing, if it takes much more room than was needed.
func kept(batch []byte) []byte {
	if cap(batch) > max(keptQueue, 8*len(batch)) {
		return nil
	}
	return batch
}
