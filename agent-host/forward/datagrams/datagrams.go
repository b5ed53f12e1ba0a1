package datagrams

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/tunnel/udp"
)

// Delays after a receive that failed.
const (
	receiveBackoffMin = 5 * time.Millisecond
	receiveBackoffMax = time.Second
)

// Receive takes datagrams from clients until the socket or done is closed, and ends
// the flows then: their answers have no place to leave from.
func (u *Flows) Receive(f *serve.Service, s *udp.Socket, done <-chan struct{}) {
	defer u.forget(s)
	var delay time.Duration
	for {
		err := s.Receive(func(b []byte, from udp.Peer) (enough bool) {
			u.fromClient(f, s, from, b)
			return false
		}, f.Lost)
		select {
		case <-done:
			return
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return // alone of the binding's sockets
		}
		f.Errors.Note(err)
		u.guest.Log().Warn("cannot receive datagrams", "vm", u.guest.Name(), "port", f.Key().Port, "error", err)
		delay = min(max(2*delay, receiveBackoffMin), receiveBackoffMax)
		select {
		case <-done:
			return
		case <-time.After(delay):
		}
	}
}

// fromClient carries one datagram to the guest.
func (u *Flows) fromClient(f *serve.Service, s *udp.Socket, from udp.Peer, b []byte) {
	id, to := u.asks(f, s, from, len(b))
	if err := u.send(f, id, to, b); err != nil {
		f.Lost(1, err)
		return
	}
	f.Counters.Out.Add(uint64(len(b)))
}

// send carries a datagram by the best way there is at the moment. What a flow has
// on another way stays there: a guest that was paused and goes on finds its
// clients at the ports they had.
func (u *Flows) send(f *serve.Service, flow uint32, to netip.AddrPort, b []byte) error {
	r := u.guest.Route()
	var linkErr error
	if r.Linked() && !f.BridgeFirst(r) {
		way, err := u.wayThrough(r.Link)
		if err == nil {
			f.Carry(r.Link, way.path())
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
		return serve.ErrNoWay
	}
	if err := f.OnBridge(r.Bridge); err != nil {
		return err
	}
	f.Carry(nil, serve.PathBridge)
	return u.overBridge().Send(flow, netip.AddrPortFrom(r.Bridge, f.Key().Port), b)
}

var errSlowGuest = errors.New("the guest takes datagrams more slowly than they come")

// fromGuest carries an answer to the client that asked, and reports whether that is of
// use to the client. An answer to nobody is left alone: the flow may have ended just now.
func (u *Flows) fromGuest(id uint32, b []byte) bool {
	fl, err := u.answer(id, len(b))
	if fl == nil {
		return false
	}
	if err == nil {
		err = fl.socket.Send(b, fl.peer)
	}
	if err != nil {
		fl.service.Lost(1, err)
		return false
	}
	fl.service.Counters.In.Add(uint64(len(b)))
	return fl.useful()
}

// useful reports whether an answer that was sent counts as of use to the client. For a
// client on this host the kernel knows what is not read.
func (fl *flow) useful() bool {
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
func (fl *flow) from() netip.AddrPort {
	at := fl.socket.LocalAddr()
	if fl.peer.Local.IsValid() {
		at = netip.AddrPortFrom(fl.peer.Local, at.Port())
	}
	return at
}

// trouble takes in that datagrams of a flow were lost in the guest or on the
// bridge.
func (u *Flows) trouble(id, lost uint32, reason string) {
	if fl := u.lostInGuest(id); fl != nil {
		fl.service.Lost(lost, errors.New(reason))
	}
}
