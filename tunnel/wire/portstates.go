package wire

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// PortOutcome is what became of a guest's port on the host.
type PortOutcome uint8

// Outcomes for ports. Values are on the wire; a receiver leaves out those it does not know.
const (
	PortForwarded PortOutcome = 1 // open on the host, where that calls it localhost
	PortTaken     PortOutcome = 2 // something else has its place on the host; it is tried again
	PortKept      PortOutcome = 3 // the host's rules leave it in the guest
	PortDenied    PortOutcome = 4 // the host's system, or a limit there, forbids it; it is tried again
	PortElsewhere PortOutcome = 5 // open on the host, but not at localhost
	PortReleased  PortOutcome = 6 // given back there, until nothing listens in the guest and something does anew
)

// PortState is a port of the guest and what became of it. Nothing else about the host is
// told: names and paths of programs there are nobody's business in the guest.
type PortState struct {
	Proto   string // "tcp" or "udp"
	Port    uint16
	Outcome PortOutcome
	Host    uint16 // the port there; 0 for one that is kept
}

// PortStatesMessage tells the guest what became of all its ports, in place of what was
// told before. On the wire it is a 16-bit number and as many items of 6 bytes: protocol,
// port, outcome, port of the host.
type PortStatesMessage struct{ Ports []PortState }

func (*PortStatesMessage) kind() messageKind { return kindPortStates }

func (m *PortStatesMessage) encode(b *cryptobyte.Builder) {
	ports := m.Ports[:min(len(m.Ports), MaxListeners)]
	b.AddUint16(uint16(len(ports)))
	for _, p := range ports {
		proto, err := indexOf(protos, p.Proto)
		if err != nil {
			b.SetError(err)
			return
		}
		b.AddUint8(proto)
		b.AddUint16(p.Port)
		b.AddUint8(uint8(p.Outcome))
		b.AddUint16(p.Host)
	}
}

func (m *PortStatesMessage) decode(s *cryptobyte.String) error {
	var n uint16
	if !s.ReadUint16(&n) {
		return errShort
	}
	if n > MaxListeners {
		return fmt.Errorf("states of %d ports, at most %d are allowed", n, MaxListeners)
	}
	for range n {
		var p PortState
		var proto uint8
		if !s.ReadUint8(&proto) || !s.ReadUint16(&p.Port) || !s.ReadUint8((*uint8)(&p.Outcome)) || !s.ReadUint16(&p.Host) {
			return errShort
		}
		if int(proto) >= len(protos) || p.Port == 0 || p.Outcome < PortForwarded || p.Outcome > PortReleased {
			continue
		}
		p.Proto = protos[proto]
		m.Ports = append(m.Ports, p)
	}
	return nil
}
