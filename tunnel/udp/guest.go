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
		Reply: func(flow uint32, payload []byte) bool {
			ok := queue.add(wire.DatagramFrame{Kind: wire.DatagramToHost, Flow: flow, Payload: payload})
			if !ok {
				queue.report(flow, 1, errHostSlow)
			}
			return true
		},
		Trouble: queue.report,
	})
	defer flows.Close()
	inVain := false
	flows.inVain = func() {
		inVain = true
		work.Spend(flowCost)
	}
	return serve(ctx, conn, queue, work, func(f wire.DatagramFrame) (useful bool, err error) {
		inVain = false
		switch f.Kind {
		case wire.DatagramToGuest:
			if err := flows.Send(f.Flow, f.Target, f.Payload); err != nil {
				queue.report(f.Flow, 1, reasonOf(f.Target, err))
				return false, nil
			}
			return !flows.isRefused(f.Flow) && !inVain, nil
		case wire.DatagramEnd:
			return flows.End(f.Flow) && !inVain, nil
		}
		return false, fmt.Errorf("host sent a datagram frame of kind %d, which only guests send", f.Kind)
	})
}

const errHostSlow = "the host takes datagrams more slowly than they come"
