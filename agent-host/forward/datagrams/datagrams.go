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
	var used *way
	on := udp.Receiver{
		Handle: func(b []byte, size int, from udp.Peer, out *udp.Burst) (useless int) {
			if w := u.fromClient(f, s, from, b, size, out); w != nil {
				used = w
			}
			return 0
		},
		Trouble: f.Lost,
		Done: func(int, time.Duration) (enough bool) {
			if used != nil {
				used.Flush()
				used = nil
			}
			return false
		},
	}
	for {
		err := s.Receive(on)
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

// fromClient carries datagrams of one client to the guest, by the best way there is at the
// moment: the link's, which it returns, is to be flushed. What a flow has
// on another way stays there: a guest that was paused and goes on finds its
// clients at the ports they had.
func (u *Flows) fromClient(f *serve.Service, s *udp.Socket, from udp.Peer, b []byte, size int, out *udp.Burst) *way {
	id, to := u.asks(f, s, from, b, size)
	r := u.guest.Route()
	var linkErr error
	if r.Linked() && !f.BridgeFirst(r) {
		way, err := u.wayThrough(r.Link)
		if err == nil {
			f.Carry(r.Link, way.path())
			for payload := range udp.Split(b, size) {
				if way.Add(id, to, payload) {
					f.Counters.Out.Add(uint64(len(payload)))
				} else {
					f.Lost(1, errSlowGuest)
				}
			}
			return way
		}
		linkErr = err
	}
	if err := u.overBridgeTo(f, r, id, b, size, out); err != nil {
		if linkErr != nil && !r.Bridge.IsValid() {
			err = linkErr
		}
		f.Lost(udp.Count(b, size), err)
	}
	return nil
}

// overBridgeTo sends datagrams of a flow by the bridge.
func (u *Flows) overBridgeTo(f *serve.Service, r *serve.Route, id uint32, b []byte, size int, out *udp.Burst) error {
	switch {
	case !r.Bridge.IsValid():
		return serve.ErrNoWay
	case r.DialBridge != nil:
		return errOtherHost
	}
	if err := f.OnBridge(r.Bridge); err != nil {
		return err
	}
	f.Carry(nil, serve.PathBridge)
	flows, to := u.overBridge(), netip.AddrPortFrom(r.Bridge, f.Key().Port)
	for payload := range udp.Split(b, size) {
		if _, err := flows.Add(id, to, payload, out); err != nil {
			return err
		}
	}
	f.Counters.Out.Add(uint64(len(b)))
	return nil
}

var (
	errOtherHost = errors.New("datagrams do not go over the bridge of another host, and there is no link to the guest agent")
	errSlowGuest = errors.New("the guest takes datagrams more slowly than they come")
)

// fromGuest has answers carried to the client that asked. An answer to nobody is left alone:
// the flow may have ended just now.
func (u *Flows) fromGuest(id uint32, b []byte, size int, out *udp.Burst) (useless int) {
	fl, err := u.answer(id, len(b))
	if fl == nil {
		return int(udp.Count(b, size))
	}
	if err != nil {
		return fl.Sent(int(udp.Count(b, size)), len(b), err)
	}
	for payload := range udp.Split(b, size) {
		out.Add(fl.socket, fl.peer, payload, fl)
	}
	return 0
}

// Sent is of [udp.Owner]: of use is what is of use to the client.
func (fl *flow) Sent(datagrams, bytes int, err error) (useless int) {
	if err != nil {
		fl.service.Lost(uint32(datagrams), err)
		return datagrams
	}
	fl.service.Counters.In.Add(uint64(bytes))
	for range datagrams {
		if !fl.useful() {
			useless++
		}
	}
	return useless
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
