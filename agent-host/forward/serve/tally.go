package serve

import (
	"sync/atomic"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

// Tally is what is known of the connections of a guest port. The zero value is none yet.
type Tally struct {
	Counters relay.Counters
	Active   atomic.Int64  // connections, or UDP flows
	Total    atomic.Uint64 // of them
	Errors   LastError

	dropped atomic.Uint64 // datagrams
	carried atomic.Pointer[carried]
	refused refusals
}

// Show puts the tally into a status.
func (n *Tally) Show(st *status.Forward) {
	st.ConnectionsActive, st.ConnectionsTotal = n.Active.Load(), n.Total.Load()
	st.BytesIn, st.BytesOut, st.Dropped = n.Counters.In.Load(), n.Counters.Out.Load(), n.dropped.Load()
	n.Errors.Show(st)
}

// Lost notes datagrams that did not arrive, and why.
func (n *Tally) Lost(datagrams uint32, err error) {
	n.dropped.Add(uint64(datagrams))
	n.Errors.remember(err) // counted as dropped
}

// Dropped is how many datagrams did not arrive.
func (n *Tally) Dropped() uint64 { return n.dropped.Load() }

// carried is what carried a forward's last connection.
type carried struct {
	link *Link // nil for the bridge
	path string
}

// Carry notes what carries the port now: a link, by that path, or nil for the bridge.
func (n *Tally) Carry(link *Link, path string) {
	if c := n.carried.Load(); c == nil || c.link != link || c.path != path {
		n.carried.Store(&carried{link, path})
	}
}
