package forward

import (
	"cmp"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/latency"
)

// Ports are those that are on the host or want to be, in no order, and how many there are
// altogether by state.
func (v *VM) Ports() (all []serve.Port, states map[string]int) {
	states = make(map[string]int)
	v.table.mu.Look(func() {
		all = make([]serve.Port, 0, v.forwards.Len())
		for k, f := range v.forwards.All() {
			states[f.state()]++
			all = append(all, serve.Port{Key: k, Open: f.main.open != nil, Tally: f.service.Tally})
		}
		for r := range v.room.Rows() {
			states[r.State()]++
		}
	})
	v.reverse.Each(func(port uint16, state string, t *serve.Tally) {
		states[state]++
		all = append(all, serve.Port{Key: policy.Key{Proto: serve.ProtoReverse, Port: port}, Open: state == status.Active, Tally: t})
	})
	return all, states
}

// Detections are how long it took from an announcement until a port was open here.
func (v *VM) Detections() *latency.Counter { return &v.detected }

// Heard says when what is announced next was heard of. What waits for its turn already was heard of before.
func (v *VM) Heard(at time.Time) { v.table.mu.Look(func() { v.heard = cmp.Or(v.heard, at) }) }

// measure takes in how long a new port took, if that is open and was announced.
func (v *VM) measure(k policy.Key) {
	if f := v.forwards.Get(k); f != nil && f.main.open != nil && !v.heard.IsZero() {
		v.detected.Observe(time.Since(v.heard))
	}
}
