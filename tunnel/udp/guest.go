package udp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// flowCost is what a flow costs that was begun and ended, and never answered.
const flowCost = 100 * time.Microsecond

// Serve serves the guest's end of a datagram stream until ctx or the stream ends, and
// resets it then, with at most limit flows, whose sockets come from dial. What serves
// nobody is taken from a budget. It returns nil if ctx ended.
func Serve(ctx context.Context, conn Conn, limit int, work *budget.Budget, dial func(netip.AddrPort) (*Socket, error)) error {
	queue := newQueue()
	flows := NewFlows(limit, dial, Handler{
		Reply: func(flow uint32, b []byte, size int, _ *Burst) (useless int) {
			lost := uint32(0)
			for payload := range Split(b, size) {
				if !queue.add(wire.DatagramFrame{Kind: wire.DatagramToHost, Flow: flow, Payload: payload}) {
					lost++
				}
			}
			if lost > 0 {
				queue.report(flow, lost, errHostSlow)
			}
			return 0
		},
		Flush:   queue.flush,
		Trouble: queue.report,
	})
	defer flows.Close()
	inVain := 0
	flows.inVain = func() {
		inVain = 1
		work.Spend(flowCost)
	}
	return serve(ctx, conn, queue, work, func(f wire.DatagramFrame, out *Burst) (useless int, err error) {
		inVain = 0
		switch f.Kind {
		case wire.DatagramToGuest:
			refused, err := flows.Add(f.Flow, f.Target, f.Payload, out)
			if err != nil {
				queue.report(f.Flow, 1, reasonOf(f.Target, err))
			}
			if refused || err != nil {
				return 1, nil
			}
			return inVain, nil
		case wire.DatagramEnd:
			out.Flush() // of its datagrams those that came before
			if !flows.End(f.Flow) {
				return 1, nil
			}
			return inVain, nil
		}
		return 0, fmt.Errorf("host sent a datagram frame of kind %d, which only guests send", f.Kind)
	})
}

const errHostSlow = "the host takes datagrams more slowly than they come"
