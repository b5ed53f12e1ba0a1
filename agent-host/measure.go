package hostagent

import (
	"iter"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/tunnel/latency"
)

// Measured is a VM as it is measured.
type Measured struct {
	VM    string
	State string // as in its status
	Links uint64 // how many there were, with the one there is
	// Ports are those that are on the host or want to be, and Forwards counts all by state.
	Ports    []serve.Port
	Forwards map[string]int
	// Detections are how long it took from announcements until ports were open.
	Detections *latency.Counter
}

// Measure tells what there is to measure of each VM. It waits for no guest, and what it tells of goes on counting.
func (a *Agent) Measure() iter.Seq[Measured] {
	return func(yield func(Measured) bool) {
		for _, v := range a.snapshot() {
			m := Measured{VM: v.Name, Links: v.links.Load(), Detections: v.forwards.Detections()}
			m.Ports, m.Forwards = v.forwards.Ports()
			v.mu.Lock()
			m.State = v.state()
			v.mu.Unlock()
			if !yield(m) {
				return
			}
		}
	}
}
