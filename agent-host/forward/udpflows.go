package forward

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
)

// maxUDPFlows is how many clients may talk to one VM at a time; one more takes
// the place of the one that has been silent longest.
const maxUDPFlows = 2048

// udpFlows are the UDP flows of a VM: a client that sends to one of its forwards,
// and what comes back to that client.
type udpFlows struct {
	vm     *VM
	ctx    context.Context // ends with the VM
	cancel context.CancelFunc

	mu       sync.Mutex
	table    *tunnel.FlowTable[udpKey, *udpFlow]
	byID     map[uint32]*udpFlow
	nextID   uint32
	way      *udpWay          // through the link that was used last
	bridge   *tunnel.UDPFlows // nil until needed
	sweeping bool
}

type udpKey struct {
	socket *tunnel.UDPSocket
	peer   tunnel.UDPPeer
}

type udpFlow struct {
	udpKey
	id      uint32
	forward *forward

	target   netip.AddrPort // used by the receiver of its socket alone
	answered atomic.Bool    // from there
	troubled atomic.Bool    // what was sent there got lost
}

// destination is where in the guest the flow goes: always to the same address,
// also when the announcement changes, until it refuses. A server may have
// connected its socket to this client, and then is no listener any more. What has
// never answered may be the wrong one of several: then it is the next one's turn.
func (fl *udpFlow) destination() netip.AddrPort {
	if troubled := fl.troubled.Swap(false); fl.target.IsValid() && !troubled {
		return fl.target
	}
	all := candidates(*fl.forward.guest.Load(), fl.peer.Addr.Addr().Is4())
	at := slices.Index(all, fl.target)
	if answered := fl.answered.Swap(false); at < 0 || !answered {
		at = (at + 1) % len(all)
	}
	fl.target = all[at]
	return fl.target
}

func newUDPFlows(v *VM) *udpFlows {
	u := &udpFlows{
		vm: v, byID: make(map[uint32]*udpFlow),
		table: tunnel.NewFlowTable[udpKey, *udpFlow](maxUDPFlows),
	}
	u.ctx, u.cancel = context.WithCancel(v.table.ctx)
	return u
}

// flow returns the flow of a client, which begins with its first datagram.
func (u *udpFlows) flow(f *forward, s *tunnel.UDPSocket, peer tunnel.UDPPeer) *udpFlow {
	k := udpKey{s, peer}
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if fl, ok := u.table.Get(k, now); ok {
		return fl
	}
	for u.nextID++; u.byID[u.nextID] != nil; u.nextID++ {
	}
	fl := &udpFlow{udpKey: k, id: u.nextID, forward: f}
	u.byID[fl.id] = fl
	f.total.Add(1)
	f.active.Add(1)
	if evicted, ok := u.table.Add(k, fl, now); ok {
		u.ended(evicted)
	}
	if !u.sweeping {
		u.sweeping = true
		u.vm.table.wg.Go(u.sweep)
	}
	return fl
}

// answered returns the flow of that number, of which an answer has come; nil for
// none.
func (u *udpFlows) answered(id uint32) *udpFlow {
	u.mu.Lock()
	defer u.mu.Unlock()
	fl := u.byID[id]
	if fl != nil {
		fl.answered.Store(true)
		u.table.Answered(fl.udpKey, time.Now())
	}
	return fl
}

func (u *udpFlows) byNumber(id uint32) *udpFlow {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.byID[id]
}

// forget ends the flows of a socket.
func (u *udpFlows) forget(s *tunnel.UDPSocket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended(u.table.RemoveIf(func(k udpKey) bool { return k.socket == s })...)
}

// ended lets go of flows that left the table. It needs u.mu.
func (u *udpFlows) ended(flows ...*udpFlow) {
	for _, fl := range flows {
		delete(u.byID, fl.id)
		fl.forward.active.Add(-1)
		if u.way != nil {
			u.way.End(fl.id)
		}
		if u.bridge != nil {
			u.bridge.End(fl.id)
		}
	}
}

// sweep ends flows whose time is over, as long as there are any.
func (u *udpFlows) sweep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-u.ctx.Done():
			return
		case now := <-tick.C:
			u.mu.Lock()
			u.ended(u.table.Expire(now)...)
			u.sweeping = u.table.Len() > 0
			more := u.sweeping
			u.mu.Unlock()
			if !more {
				return
			}
		}
	}
}
