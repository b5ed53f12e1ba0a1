package serve

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/policy"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Service is a guest port as its clients are served: what listens there, how its rule wants
// that, and what became of the connections. It takes no lock of who has it; what changes
// is in the next connection.
type Service struct {
	guest  *Guest
	key    policy.Key
	listen atomic.Pointer[[]portlist.Listener]
	manner atomic.Pointer[manner]

	*Tally
}

// manner is how a rule wants clients to be served.
type manner struct {
	proxyProtocol bool
	from, to      netip.AddrPort // what is told of a client, in the place of its own addresses
	hold          time.Duration
	holding       *holding // nil where there is no hold, and never was
}

// Service returns a service of the VM, with the tally of the port's earlier connections; nil
// for none. [Service.Follow] comes before its first client.
func (g *Guest) Service(k policy.Key, earlier *Tally) *Service {
	s := &Service{guest: g, key: k, Tally: earlier}
	if s.Tally == nil {
		s.Tally = &Tally{}
	}
	return s
}

// Apart is the service as it is now, with a tally of its own: what becomes of its connections is
// counted nowhere else.
func (s *Service) Apart() *Service {
	apart := s.guest.Service(s.key, nil)
	apart.listen.Store(s.listen.Load())
	apart.manner.Store(s.manner.Load())
	return apart
}

// Follow takes over what listens in the guest, and how the rule wants it served.
func (s *Service) Follow(g *policy.Group) {
	listen := g.Guest // without the rest of the group
	s.listen.Store(&listen)
	m := manner{proxyProtocol: g.Decision.ProxyProtocol, hold: g.Decision.Hold, holding: s.holding()}
	if m.hold > 0 && m.holding == nil {
		m.holding = newHolding()
	}
	if was := s.manner.Load(); was == nil || *was != m {
		s.manner.Store(&m)
	}
	m.holding.look()
	s.refused.forget()
}

// Listeners are what listens in the guest. They are not to be changed.
func (s *Service) Listeners() []portlist.Listener { return *s.listen.Load() }

// Key is the port.
func (s *Service) Key() policy.Key { return s.key }

// Look has clients that wait for the service try again, and new ones passed on to it, because
// it is reached anew.
func (s *Service) Look() {
	s.holding().look()
	s.refused.forget()
}

// End has no client wait for the service any more.
func (s *Service) End() { s.holding().end() }

// holding is what clients wait by; nil where none ever could.
func (s *Service) holding() *holding {
	if m := s.manner.Load(); m != nil {
		return m.holding
	}
	return nil
}

// Path is what carried the last connection if that would carry the next one
// too, else what would.
func (s *Service) Path() string {
	r := s.guest.Route()
	switch {
	case r.Linked() && !s.BridgeFirst(r):
		if c := s.carried.Load(); c != nil && c.link == r.Link {
			return c.path
		}
		return r.Link.Path
	case r.Bridge.IsValid() && s.OnBridge(r.Bridge) == nil:
		return PathBridge
	}
	return ""
}
