package tunnel

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// UDPFlows keeps a connected UDP socket for every flow, so that a service sees
// each client at a port of its own and what it answers comes back by the flow.
//
// That a service refuses datagrams (ICMP port unreachable) does not end a flow:
// it may be starting again.
type UDPFlows struct {
	dial func(netip.AddrPort) (*net.UDPConn, error)
	on   DatagramHandler

	receivers sync.WaitGroup

	mu     sync.Mutex
	table  *FlowTable[uint32, *udpFlow]
	closed bool
}

type udpFlow struct {
	target netip.AddrPort
	socket *UDPSocket
}

// NewUDPFlows returns a set of at most limit flows whose sockets come from dial.
// on is told what they receive, from several goroutines. Close it to release the
// sockets.
func NewUDPFlows(limit int, dial func(netip.AddrPort) (*net.UDPConn, error), on DatagramHandler) *UDPFlows {
	return &UDPFlows{dial: dial, on: on, table: NewFlowTable[uint32, *udpFlow](limit)}
}

// Send sends a datagram of a flow, which begins with its first one. It does not
// wait. After an error the datagram is lost and the flow goes on.
func (u *UDPFlows) Send(flow uint32, to netip.AddrPort, payload []byte) error {
	f, err := u.flow(flow, to)
	if err != nil {
		return err
	}
	return f.socket.Send(payload, UDPPeer{})
}

// flow returns the socket of a flow. A flow whose target is another one than
// before gets a new socket.
func (u *UDPFlows) flow(id uint32, to netip.AddrPort) (*udpFlow, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, net.ErrClosed
	}
	now := time.Now()
	if f, ok := u.table.Get(id, now); ok {
		if f.target == to {
			return f, nil
		}
		u.table.Remove(id)
		_ = f.socket.Close()
	}
	conn, err := u.dial(to)
	if err != nil {
		return nil, err
	}
	socket, err := NewUDPSocket(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	f := &udpFlow{target: to, socket: socket}
	if evicted, ok := u.table.Add(id, f, now); ok {
		_ = evicted.socket.Close()
	}
	u.receivers.Go(func() { u.receive(id, f) })
	return f, nil
}

func (u *UDPFlows) receive(id uint32, f *udpFlow) {
	err := f.socket.Receive(func(b []byte, _ UDPPeer) {
		u.mu.Lock()
		now, ok := u.table.Answered(id, time.Now())
		u.mu.Unlock()
		if ok && now == f {
			u.on.Reply(id, b)
		}
	}, func(lost uint32, err error) {
		u.on.Trouble(id, lost, udpReason(f.target, err))
	})
	if !errors.Is(err, net.ErrClosed) {
		u.on.Trouble(id, 0, udpReason(f.target, err))
	}
	u.mu.Lock()
	if now, ok := u.table.Get(id, time.Now()); ok && now == f {
		u.table.Remove(id)
	}
	u.mu.Unlock()
	_ = f.socket.Close()
}

// udpReason is an error in words that say where it happened.
func udpReason(target netip.AddrPort, err error) string {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "nothing receives at udp " + target.String()
	}
	return "udp " + target.String() + ": " + err.Error()
}

// End closes the socket of a flow.
func (u *UDPFlows) End(flow uint32) {
	u.mu.Lock()
	f, ok := u.table.Remove(flow)
	u.mu.Unlock()
	if ok {
		_ = f.socket.Close()
	}
}

// Expire closes the sockets that have been idle for too long.
func (u *UDPFlows) Expire(now time.Time) {
	u.mu.Lock()
	expired := u.table.Expire(now)
	u.mu.Unlock()
	for _, f := range expired {
		_ = f.socket.Close()
	}
}

// Close closes all sockets and waits until none is received from.
func (u *UDPFlows) Close() {
	u.mu.Lock()
	u.closed = true
	all := u.table.RemoveIf(func(uint32) bool { return true })
	u.mu.Unlock()
	for _, f := range all {
		_ = f.socket.Close()
	}
	u.receivers.Wait()
}
