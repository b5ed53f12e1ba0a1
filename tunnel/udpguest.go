package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
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
func (l *guestLink) serveUDP(ctx context.Context, conn net.Conn, s *Stream) {
	status, reason := AnswerOK, ""
	if l.datagramStreams.Add(1) > maxDatagramStreams {
		status, reason = AnswerDenied, "too many datagram streams"
	}
	defer l.datagramStreams.Add(-1)
	if _, err := conn.Write(appendAnswer(nil, status, reason)); err != nil || status != AnswerOK {
		s.die(net.ErrClosed)
		return
	}
	if err := serveGuestDatagrams(ctx, s, maxGuestFlows); err != nil {
		l.server.log().Debug("datagram stream ended", "err", err)
	}
}

func serveGuestDatagrams(ctx context.Context, conn Conn, limit int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := newDatagramQueue()
	flows := NewUDPFlows(limit, dialUDP, DatagramHandler{
		Reply: func(flow uint32, payload []byte) {
			if !queue.add(datagramFrame{kind: datagramToHost, flow: flow, payload: payload}) {
				queue.report(flow, 1, errHostSlow)
			}
		},
		Trouble: queue.report,
	})
	defer flows.Close()

	swept := make(chan struct{})
	go func() { defer close(swept); sweep(ctx, flows) }()
	defer func() { cancel(); <-swept }()

	return serveDatagrams(ctx, conn, queue, func(f datagramFrame) error {
		switch f.kind {
		case datagramToGuest:
			if err := flows.Send(f.flow, f.target, f.payload); err != nil {
				queue.report(f.flow, 1, udpReason(f.target, err))
			}
		case datagramEnd:
			flows.End(f.flow)
		default:
			return fmt.Errorf("host sent a datagram frame of kind %d, which only guests send", f.kind)
		}
		return nil
	})
}

const errHostSlow = "the host takes datagrams more slowly than they come"

// dialUDP connects a socket to an address of this machine, which waits for
// nothing. A server on :: is reached by IPv4 where IPv6 is switched off.
func dialUDP(to netip.AddrPort) (*net.UDPConn, error) {
	conn, err := dialLocal(context.Background(), networkUDP, to)
	if err != nil && to.Addr() == netip.IPv6Unspecified() && !errors.Is(err, syscall.ECONNREFUSED) {
		conn, err = dialLocal(context.Background(), networkUDP, netip.AddrPortFrom(loopback4, to.Port()))
	}
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

func sweep(ctx context.Context, flows *UDPFlows) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			flows.Expire(now)
		}
	}
}
