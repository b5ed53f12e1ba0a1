package tunnel

import (
	"context"
	"net"
	"net/netip"

	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/udp"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// maxGuestFlows is how many flows one datagram stream may have: twice what
	// the host agent keeps.
	maxGuestFlows = 4096
	// maxDatagramStreams is how many datagram streams a link may have: the host
	// uses one, and a second while it replaces that.
	maxDatagramStreams = 2
)

// serveUDP serves a datagram stream to its end.
func (l *guestLink) serveUDP(ctx context.Context, conn net.Conn, s *stream.Stream) {
	status, reason := wire.AnswerOK, ""
	if l.datagramStreams.Add(1) > maxDatagramStreams {
		status, reason = wire.AnswerDenied, "too many datagram streams"
		l.payRefusal()
	}
	defer l.datagramStreams.Add(-1)
	if _, err := conn.Write(wire.AppendAnswer(nil, status, reason)); err != nil || status != wire.AnswerOK {
		s.Die(net.ErrClosed)
		return
	}
	dial := func(to netip.AddrPort) (*udp.Socket, error) { return dial.UDP(to, l.server.Own, l.server.Also) }
	if err := udp.Serve(ctx, s, l.maxFlows(), l.datagrams, dial); err != nil {
		l.server.log().Debug("datagram stream ended", "err", err)
	}
}

// maxFlows is how many UDP flows a datagram stream of the link may have.
func (l *guestLink) maxFlows() int {
	if l.orders == nil {
		return keylessLimit(maxKeylessFlows, keylessFlowsOf)
	}
	return maxGuestFlows
}
