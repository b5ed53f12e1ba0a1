package metrics

import (
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// totals are what was counted of ports, but for what is only now.
type totals struct {
	connections, in, out, dropped uint64
	errors                        [len(serve.Kinds)]uint64
	dials                         latency
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

// latency is what histograms of one matter have together.
type latency struct {
	atMost [len(relay.LatencyBounds)]uint64
	all    uint64
	sum    time.Duration
}

func (l *latency) add(h *relay.Latency) {
	atMost, all, sum := h.Counts()
	for i, n := range atMost {
		l.atMost[i] += n
	}
	l.all += all
	l.sum += sum
}
