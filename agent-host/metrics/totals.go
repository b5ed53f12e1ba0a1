package metrics

import (
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/tunnel/latency"
)

// totals are what was counted of ports, but for what is only now.
type totals struct {
	connections, in, out, dropped uint64
	errors                        [len(serve.Kinds)]uint64
	dials                         took
}

// add adds what a port's tally has counted by now.
func (t *totals) add(n *serve.Tally) {
	t.connections += n.Total.Load()
	t.in += n.Counters.In.Load()
	t.out += n.Counters.Out.Load()
	t.dropped += n.Dropped()
	for i, errors := range n.Errors.Counts() {
		t.errors[i] += errors
	}
	t.dials.add(&n.Counters.Dials)
}

// took is what histograms of one matter have together.
type took struct {
	atMost [len(latency.Bounds)]uint64
	all    uint64
	sum    time.Duration
}

func (l *took) add(h *latency.Counter) {
	atMost, all, sum := h.Counts()
	for i, n := range atMost {
		l.atMost[i] += n
	}
	l.all += all
	l.sum += sum
}
