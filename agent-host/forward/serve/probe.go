package serve

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Probe connects to the service the way that a client's connection would take, says nothing,
// and resets. It counts as no connection of the port.
func (s *Service) Probe(ctx context.Context) error {
	r := s.guest.Route()
	switch {
	case r.Linked() && !s.BridgeFirst(r):
		target := wire.Target{Network: s.key.Proto, Addrs: policy.Candidates(s.Listeners(), true)}
		if s.key.Socket != "" {
			target = wire.UnixTarget(s.key.Socket)
		}
		ctx, cancel := context.WithTimeout(ctx, OpenTimeout)
		defer cancel()
		guest, _, err := r.Link.Open(ctx, target, nil)
		if err != nil {
			return fmt.Errorf("%w: %w", errLink, err)
		}
		defer guest.Abort()
		if st, ok := guest.(*stream.Stream); ok {
			return st.Answer(ctx)
		}
		return nil
	case r.Bridge.IsValid() && r.DialBridge != nil:
		c, err := s.connectBridge(ctx, r)
		if err == nil {
			c.Abort()
		}
		return err
	case r.Bridge.IsValid():
		return s.probeBridge(ctx, netip.AddrPortFrom(r.Bridge, s.key.Port))
	}
	return ErrNoWay
}

func (s *Service) probeBridge(ctx context.Context, addr netip.AddrPort) error {
	if err := s.OnBridge(addr.Addr()); err != nil {
		return err
	}
	if s.guest.isOurs(s.key.Proto, addr) {
		return fmt.Errorf("bridge address %v is this host's own", addr)
	}
	d := net.Dialer{Timeout: wire.DialTimeout, Control: relay.ControlTCP}
	c, err := d.DialContext(ctx, s.key.Proto, addr.String())
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	err = dial.NotToItself(c)
	if t, ok := c.(*net.TCPConn); ok && err == nil {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
	return err
}
