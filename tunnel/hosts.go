package tunnel

import "github.com/rum-vm/rum-agent/tunnel/wire"

// Host is a host agent that a [Server] has a link with.
type Host struct {
	// Name is what the machine calls itself, "" before it has said so.
	Name string
	Auth string // "psk" or "none"
	// Ports are what became of the guest's ports there; nil before the host has told,
	// which agents of older versions do not.
	Ports []wire.PortState
}

// Hosts are those that there are links with now, in the order in which they came.
func (s *Server) Hosts() []Host {
	var hosts []Host
	for _, l := range s.allLinks() {
		l.mu.Lock()
		hosts = append(hosts, Host{Name: l.hostname, Auth: l.agreed.Auth, Ports: l.ports})
		l.mu.Unlock()
	}
	return hosts
}

// hostsChanged tells who wants to know.
func (s *Server) hostsChanged() {
	if s.Changed != nil {
		s.Changed()
	}
}

// TellPorts tells the guest what became of its ports on this host, in place of what it
// was told before. It does not wait. More than MaxListeners ports are cut off.
func (l *Link) TellPorts(ports []wire.PortState) {
	l.control.sendLatest(&wire.PortStatesMessage{Ports: ports})
}
