package forward

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/udp"
)

// listenUDP opens a host socket. One on :: is for IPv6 alone, as with TCP.
func (t *Table) listenUDP(addr netip.AddrPort) (listener, error) {
	network := "udp6"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return listener{}, err
	}
	inode, err := t.takeIn(conn)
	if err != nil {
		_ = conn.Close()
		return listener{}, err
	}
	socket, err := udp.NewSocket(conn)
	if err != nil {
		_ = conn.Close()
		t.ours.Remove(inode)
		return listener{}, err
	}
	return listener{socket, inode}, nil
}

// Delays after a receive that failed.
const (
	receiveBackoffMin = 5 * time.Millisecond
	receiveBackoffMax = time.Second
)

// receive takes datagrams from clients until the socket or done is closed, and ends
// the flows then: their answers have no place to leave from.
func (f *forward) receive(s *udp.Socket, done <-chan struct{}) {
	u := f.vm.udp
	defer u.forget(s)
	var delay time.Duration
	for {
		err := s.Receive(func(b []byte, from udp.Peer) (enough bool) {
			u.fromClient(f, s, from, b)
			return false
		}, f.lost)
		select {
		case <-done:
			return
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return // alone of the binding's sockets
		}
		f.lastErr.note(err)
		f.vm.table.log.Warn("cannot receive datagrams", "vm", f.vm.name, "port", f.key.Port, "error", err)
		delay = min(max(2*delay, receiveBackoffMin), receiveBackoffMax)
		select {
		case <-done:
			return
		case <-time.After(delay):
		}
	}
}

// lost notes datagrams that did not arrive, and why.
func (f *forward) lost(n uint32, err error) {
	f.dropped.Add(uint64(n))
	f.lastErr.note(err)
}

// fromClient carries one datagram to the guest.
func (u *udpFlows) fromClient(f *forward, s *udp.Socket, from udp.Peer, b []byte) {
	id, to := u.asks(f, s, from, len(b))
	if err := u.send(f, id, to, b); err != nil {
		f.lost(1, err)
		return
	}
	f.counters.Out.Add(uint64(len(b)))
}

// send carries a datagram by the best way there is at the moment. What a flow has
// on another way stays there: a guest that was paused and goes on finds its
// clients at the ports they had.
func (u *udpFlows) send(f *forward, flow uint32, to netip.AddrPort, b []byte) error {
	r := u.vm.route.Load()
	var linkErr error
	if r.link != nil && !r.link.Silent() && !f.bridgeFirst(r) {
		way, err := u.wayThrough(r.link)
		if err == nil {
			f.carry(r.link, way.path())
			if !way.Send(flow, to, b) {
				return errSlowGuest
			}
			return nil
		}
		linkErr = err
	}
	if !r.Bridge.IsValid() {
		if linkErr != nil {
			return linkErr
		}
		return errNoWay
	}
	if err := f.onBridge(r.Bridge); err != nil {
		return err
	}
	f.carry(nil, pathBridge)
	return u.overBridge().Send(flow, netip.AddrPortFrom(r.Bridge, f.key.Port), b)
}

var errSlowGuest = errors.New("the guest takes datagrams more slowly than they come")

// carry notes what carries the forward now.
func (f *forward) carry(link *Link, path string) {
	if c := f.carried.Load(); c == nil || c.link != link || c.path != path {
		f.carried.Store(&carried{link, path})
	}
}

// fromGuest carries an answer to the client that asked, and reports whether that is of
// use to the client. An answer to nobody is left alone: the flow may have ended just now.
func (u *udpFlows) fromGuest(id uint32, b []byte) bool {
	fl, err := u.answer(id, len(b))
	if fl == nil {
		return false
	}
	if err == nil {
		err = fl.socket.Send(b, fl.peer)
	}
	if err != nil {
		fl.forward.lost(1, err)
		return false
	}
	fl.forward.counters.In.Add(uint64(len(b)))
	return fl.useful()
}

// useful reports whether an answer that was sent counts as of use to the client. For a
// client on this host the kernel knows what is not read.
func (fl *udpFlow) useful() bool {
	if fl.local && !fl.blind.Load() {
		useful, err := fl.delivery.Sent(fl.from(), fl.peer.Addr)
		if err == nil {
			return useful
		}
		fl.blind.Store(true) // as if the client were somewhere in the network
	}
	return fl.unasked.Add(1) <= answersPerDatagram
}

// from is the address from which the client is answered.
func (fl *udpFlow) from() netip.AddrPort {
	at := fl.socket.LocalAddr()
	if fl.peer.Local.IsValid() {
		at = netip.AddrPortFrom(fl.peer.Local, at.Port())
	}
	return at
}

// trouble takes in that datagrams of a flow were lost in the guest or on the
// bridge.
func (u *udpFlows) trouble(id, lost uint32, reason string) {
	if fl := u.lostInGuest(id); fl != nil {
		fl.forward.lost(lost, errors.New(reason))
	}
}
