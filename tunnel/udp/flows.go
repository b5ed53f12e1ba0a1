package udp

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
)

// Flows keeps a UDP socket for every flow, so that a service sees each client at
// a port of its own and what it answers comes back by the flow. A flow lasts until
// End, or until there are more than the limit.
//
// That a service refuses datagrams (ICMP port unreachable) does not end a flow:
// it may be starting again.
type Flows struct {
	dial func(netip.AddrPort) (*Socket, error)
	on   Handler

	work      *budget.Budget // for what is of no use
	inVain    func()         // is told by Send and End of a flow that ends without an answer; nil for nobody
	receivers sync.WaitGroup
	ended     chan struct{} // closed by Close

	mu     sync.Mutex
	table  *flowTable[uint32, *flow]
	closed bool
}

type flow struct {
	target netip.AddrPort
	socket *Socket

	// Of a socket that is not connected; guarded by Flows.mu. A service may
	// answer from another port than it was asked at, as TFTP does, and expects what
	// follows there. One that has answered from where it was asked does not.
	peer    netip.AddrPort // where the service is now
	settled bool           // it has answered from target

	// Guarded by Flows.mu.
	refused  bool // nobody was there of late
	answered bool
}

// NewFlows returns a set of at most limit flows whose sockets come from dial.
// on is told what they receive, from several goroutines. Close it to release the
// sockets.
func NewFlows(limit int, dial func(netip.AddrPort) (*Socket, error), on Handler) *Flows {
	return &Flows{
		dial: dial, on: on, work: on.work(), ended: make(chan struct{}),
		table: newFlowTable[uint32, *flow](limit),
	}
}

// Send sends a datagram of a flow, which begins with its first one. It does not
// wait. After an error the datagram is lost and the flow goes on.
func (u *Flows) Send(flow uint32, to netip.AddrPort, payload []byte) error {
	f, peer, err := u.flow(flow, to)
	if err != nil {
		return err
	}
	return f.socket.Send(payload, Peer{Addr: peer})
}

// flow returns the socket of a flow, and where it sends to. A flow whose target is
// another one than before gets a new socket.
func (u *Flows) flow(id uint32, to netip.AddrPort) (*flow, netip.AddrPort, error) {
	var over []*flow
	defer func() { u.over(over...) }()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, netip.AddrPort{}, net.ErrClosed
	}
	if f, ok := u.table.get(id); ok {
		if f.target == to {
			return f, f.peer, nil
		}
		u.table.remove(id)
		over = append(over, f)
	}
	socket, err := u.dial(to)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	f := &flow{target: to, socket: socket, peer: socket.peer}
	if old, evicted, ok := u.table.add(id, f); ok {
		over = append(over, evicted)
		u.on.Trouble(old, 1, errTooManyFlows)
	}
	u.receivers.Go(func() { u.receive(id, f) })
	return f, f.peer, nil
}

const errTooManyFlows = "more UDP clients than the guest agent has sockets for"

// answered returns whether a datagram from a peer is an answer of the flow.
func (u *Flows) answered(id uint32, f *flow, from netip.AddrPort) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now, ok := u.table.answer(id); !ok || now != f {
		return false
	}
	f.refused, f.answered = false, true
	first := f.socket.peer
	switch {
	case !first.IsValid():
		return true // connected: the kernel sees to it
	case from == first:
		f.settled, f.peer = true, first
	case from.Addr() != first.Addr() || f.settled:
		return false
	default:
		f.peer = from
	}
	return true
}

// refused takes in that nobody is where the flow sends to: what has moved to another
// port is begun anew.
func (u *Flows) refused(f *flow) {
	u.mu.Lock()
	f.peer, f.refused = f.socket.peer, true
	u.mu.Unlock()
}

// isRefused tells whether nobody is there whom a flow's datagrams are for.
func (u *Flows) isRefused(id uint32) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	f, ok := u.table.get(id)
	return ok && f.refused
}

func (u *Flows) receive(id uint32, f *flow) {
	trouble := func(lost uint32, err error) {
		u.refused(f)
		u.on.Trouble(id, lost, reasonOf(f.target, err))
	}
	var err error
	for err == nil {
		err = f.socket.Receive(func(b []byte, from Peer) (enough bool) {
			began := clock.Now()
			if u.answered(id, f, from.Addr) && u.on.Reply(id, b) {
				return false
			}
			u.work.Spend(budget.MessageCost + clock.Now() - began)
			return u.work.Left() < 0
		}, trouble)
		if err == nil {
			err = u.work.Wait(u.ended)
		}
	}
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, budget.ErrEnded) {
		u.on.Trouble(id, 0, reasonOf(f.target, err))
	}
	u.mu.Lock()
	if now, ok := u.table.get(id); ok && now == f {
		u.table.remove(id)
	}
	u.mu.Unlock()
	_ = f.socket.Close()
}

// reasonOf is an error in words that say where it happened.
func reasonOf(target netip.AddrPort, err error) string {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "nothing receives at udp " + target.String()
	}
	return "udp " + target.String() + ": " + err.Error()
}

// End closes the socket of a flow, and reports whether there is one.
func (u *Flows) End(flow uint32) bool {
	u.mu.Lock()
	f, ok := u.table.remove(flow)
	u.mu.Unlock()
	if ok {
		u.over(f)
	}
	return ok
}

// over closes the sockets of flows that are not in the table any more. It must not be
// called with u.mu: a socket closes when what it has received was handed over, for which
// that is needed.
func (u *Flows) over(all ...*flow) {
	for _, f := range all {
		u.mu.Lock()
		inVain := !f.answered
		u.mu.Unlock()
		if inVain && u.inVain != nil {
			u.inVain()
		}
		_ = f.socket.Close()
	}
}

// Close closes all sockets and waits until none is received from.
func (u *Flows) Close() {
	u.mu.Lock()
	if !u.closed {
		u.closed = true
		close(u.ended)
	}
	all := u.table.clear()
	u.mu.Unlock()
	for _, f := range all {
		_ = f.socket.Close()
	}
	u.receivers.Wait()
}
