package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// maxReverseStreams is how many connections a guest can have open to the host,
// those included that have not said yet what they are.
const maxReverseStreams = 512

// maxGuestStreams is how many streams a guest may have open, which are for reverse
// listeners only; some may be under way of a listener that was taken back.
const maxGuestStreams = 2 * maxReverseStreams

// reverses are the listeners of a link's guest.
type reverses struct {
	mu     sync.Mutex
	byID   map[uint64]*announce.Reverse
	ids    map[*announce.Reverse]uint64
	lastID uint64
	told   bool // the guest has been told of any

	streams chan struct{} // bounds connections
	wg      sync.WaitGroup
	refused sync.Once // logs the first
}

func (v *reverses) get(id uint64) *announce.Reverse {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.byID[id]
}

// admit refuses a stream of a guest that was told of no listener. One of a listener
// that was taken back may be under way.
func (v *reverses) admit(open int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case !v.told:
		return errors.New("it has no listener of ours")
	case open >= maxGuestStreams:
		return fmt.Errorf("%d are open already", open)
	}
	return nil
}

// SetReverse makes the listeners in the guest be those in rs, of which at most
// MaxReverse are taken. One that was there before, which is the same pointer, is
// left alone. Connections of those that go are not touched. SetReverse waits
// for nothing.
func (l *Link) SetReverse(rs []*announce.Reverse) error {
	var extra error
	if len(rs) > wire.MaxReverse {
		extra = fmt.Errorf("%d reverse listeners, at most %d are allowed", len(rs), wire.MaxReverse)
		rs = rs[:wire.MaxReverse]
	}
	v := &l.reverse
	v.mu.Lock()
	defer v.mu.Unlock()
	byID, ids := make(map[uint64]*announce.Reverse, len(rs)), make(map[*announce.Reverse]uint64, len(rs))
	var m wire.ReverseMessage
	for _, r := range rs {
		if err := wire.CheckListen(r.Listen); err != nil {
			return err
		}
		id, known := v.ids[r]
		if !known {
			v.lastID++
			id = v.lastID
		}
		byID[id], ids[r] = r, id
		m.Listeners = append(m.Listeners, wire.ReverseSpec{ID: id, Listen: r.Listen})
	}
	v.byID, v.ids = byID, ids
	// An agent that does not know the message is not bothered without need.
	if len(rs) > 0 || v.told {
		v.told = true
		m.Proof = l.orders.Sign(handshake.OrderReverse, m.Order())
		l.control.send(&m)
	}
	return extra
}

// reverseState takes in how a listener is. One of an ID that is not known may
// have been taken back meanwhile.
func (l *Link) reverseState(m *wire.ReverseStateMessage) {
	if r := l.reverse.get(m.ID); r != nil {
		r.State(m.State, m.Reason)
	}
}

// acceptStreams takes the streams that the guest opens for the listeners it was
// told to have, and refuses all others. It waits for none of them.
func (l *Link) acceptStreams(ctx context.Context) error {
	v := &l.reverse
	for {
		s, err := l.session.Accept(ctx)
		if err != nil {
			return err
		}
		select {
		case v.streams <- struct{}{}:
		default:
			l.refuse(s, fmt.Sprintf("%d are open already", maxReverseStreams))
			continue
		}
		v.wg.Go(func() {
			l.serveReverse(ctx, s)
			<-v.streams
		})
	}
}

// refuse closes a stream of the guest. The log is told once: a guest can go on
// for as long as it likes.
func (l *Link) refuse(s *mux.Conn, why string) {
	l.logRefusal(why)
	l.work.Spend(budget.RefusalCost)
	_ = s.Close()
}

func (l *Link) logRefusal(why string) {
	l.reverse.refused.Do(func() {
		l.cfg.log().Warn("refused a stream that the guest opened; more are refused in silence", "why", why)
	})
}

// serveReverse connects a stream of the guest to the host's service. The guest is
// told how that ended, but not in words: those are the host's own.
func (l *Link) serveReverse(ctx context.Context, conn *mux.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	open, err := wire.ReadReverseOpen(conn)
	_ = conn.SetReadDeadline(time.Time{})
	if err != nil {
		l.refuse(conn, err.Error())
		return
	}
	r := l.reverse.get(open.Listener)
	if r == nil {
		// Taken back while the connection was under way, or made up.
		_, _ = conn.Write(wire.AppendAnswer(nil, wire.AnswerDenied, ""))
		l.refuse(conn, "it names no listener of ours")
		return
	}
	s := stream.NewAnswered(open.ID, &l.ends)
	if err := l.ends.Add(s); err != nil {
		l.refuse(conn, err.Error())
		return
	}
	if err := s.Attach(conn); err != nil {
		l.work.Spend(budget.RefusalCost)
		return // reset by the guest already, or the link has ended
	}
	dialCtx, cancel := context.WithTimeout(ctx, wire.DialTimeout)
	s.WhenDead(cancel)
	target, err := r.Dial(dialCtx)
	s.WhenDead(nil)
	cancel()
	status, _ := answerTo(err)
	// A client that has gone does not take it, and what it sent before still is to
	// arrive.
	_, _ = conn.Write(wire.AppendAnswer(nil, status, ""))
	if err != nil {
		s.Die(net.ErrClosed)
		r.Ended(err)
		return
	}
	relay.Relay(target, s, r.Counters, func(err error) { r.Ended(clientInGuest(err)) })
}

// clientInGuest marks, of how a connection from the guest ended, what its client
// did. What [relay.Relay] takes for the client is the service.
func clientInGuest(err error) error {
	if service, ok := errors.AsType[*relay.ClientError](err); ok {
		return fmt.Errorf("service: %w", service.Err)
	}
	if errors.Is(err, relay.ErrResetByPeer) {
		return &relay.ClientError{Err: err}
	}
	return err
}
