package serve

import "net/netip"

// OnBehalf is the service for one client that has connected to an address of this agent, and whose requests come
// by another connection: what is told of clients (see proxyHeader) is told of that one. It is s itself where
// the rule wants nothing told.
func (s *Service) OnBehalf(from, to netip.AddrPort) *Service {
	m := *s.manner.Load()
	if !m.proxyProtocol {
		return s
	}
	m.from, m.to = from, to
	own := s.guest.Service(s.key, s.Tally)
	own.listen.Store(s.listen.Load())
	own.manner.Store(&m)
	return own
}
