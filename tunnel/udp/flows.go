package udp

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/budget"
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
	of     *Flows
	id     uint32
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

// Add has a datagram of a flow sent, which begins with its first one. After an error the
// datagram is lost and the flow goes on; one that is met later is trouble. It reports
// whether nobody was there of late whom the flow's datagrams are for.
func (u *Flows) Add(id uint32, to netip.AddrPort, payload []byte, out *Burst) (refused bool, err error) {
	f, peer, refused, ok := u.find(id, to)
	if !ok {
		out.Flush() // a flow that makes room for this one may have datagrams there
		if f, peer, err = u.begin(id, to); err != nil {
			return false, err
		}
	}
	out.Add(f.socket, Peer{Addr: peer}, payload, f)
	return refused, nil
}

// Sent is of [Owner].
func (f *flow) Sent(datagrams, _ int, err error) (useless int) {
	if err == nil {
		return 0
	}
	f.of.on.Trouble(f.id, uint32(datagrams), reasonOf(f.target, err))
	return datagrams
}

// find returns a flow to a target, where its socket sends to, and whether that has refused.
func (u *Flows) find(id uint32, to netip.AddrPort) (f *flow, peer netip.AddrPort, refused, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f, ok = u.table.get(id); !ok || f.target != to {
		return nil, netip.AddrPort{}, false, false
	}
	return f, f.peer, f.refused, true
}

// begin makes a flow, in the place of one that has another target.
func (u *Flows) begin(id uint32, to netip.AddrPort) (*flow, netip.AddrPort, error) {
	var over []*flow
	defer func() { u.over(over...) }()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, netip.AddrPort{}, net.ErrClosed
	}
	if f, ok := u.table.remove(id); ok {
		over = append(over, f)
	}
	socket, err := u.dial(to)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	f := &flow{of: u, id: id, target: to, socket: socket, peer: socket.peer}
	if old, evicted, ok := u.table.add(id, f); ok {
		over = append(over, evicted)
		u.on.Trouble(old, 1, errTooManyFlows)
	}
	u.receivers.Go(func() { u.receive(f) })
	return f, f.peer, nil
}

const errTooManyFlows = "more UDP clients than the guest agent has sockets for"

// answered returns whether a datagram from a peer is an answer of the flow.
func (u *Flows) answered(f *flow, from netip.AddrPort) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now, ok := u.table.answer(f.id); !ok || now != f {
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

func (u *Flows) receive(f *flow) {
	on := Receiver{
		Handle: func(b []byte, size int, from Peer, out *Burst) (useless int) {
			if !u.answered(f, from.Addr) {
				return int(Count(b, size))
			}
			return u.on.Reply(f.id, b, size, out)
		},
		Trouble: func(lost uint32, err error) {
			u.refused(f)
			u.on.Trouble(f.id, lost, reasonOf(f.target, err))
		},
		Done: func(useless int, took time.Duration) (enough bool) {
			if u.on.Flush != nil {
				u.on.Flush()
			}
			if useless == 0 {
				return false
			}
			u.work.Spend(time.Duration(useless)*budget.MessageCost + took)
			return u.work.Left() < 0
		},
	}
	var err error
	for err == nil {
		if err = f.socket.Receive(on); err == nil {
			err = u.work.Wait(u.ended)
		}
	}
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, budget.ErrEnded) {
		u.on.Trouble(f.id, 0, reasonOf(f.target, err))
	}
	u.mu.Lock()
	if now, ok := u.table.get(f.id); ok && now == f {
		u.table.remove(f.id)
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
