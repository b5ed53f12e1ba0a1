package serve

import (
	"context"
	"errors"
	"net"
)

// HandOver connects to the service by a connection that is nobody else's, and gives it away: what
// becomes of it is counted and bounded nowhere here. It is what the link has for one, or one of TCP
// over the bridge. The error is [errors.ErrUnsupported] where only [Service.Serve] does what is to be
// done, because the rule wants more than a connection, or because there is none to give away.
func (s *Service) HandOver(ctx context.Context) (net.Conn, error) {
	m, r := s.manner.Load(), s.guest.Route()
	if m.proxyProtocol || m.hold > 0 || !s.refused.pass() {
		return nil, errors.ErrUnsupported
	}
	ctx, cancel := context.WithTimeout(ctx, OpenTimeout)
	defer cancel()
	conn, err := s.handOver(ctx, r)
	s.refused.note(err)
	return conn, err
}

func (s *Service) handOver(ctx context.Context, r *Route) (net.Conn, error) {
	if r.Linked() && !s.BridgeFirst(r) {
		return r.Link.HandOver(ctx, s.target(true))
	}
	switch {
	case !r.Bridge.IsValid():
		return nil, ErrNoWay
	case r.DialBridge != nil:
		return nil, errors.ErrUnsupported
	}
	c, err := s.connectHere(ctx, r.Bridge)
	if err != nil {
		return nil, err
	}
	return c, c.SetLinger(-1) // whose it is decides how it ends
}
