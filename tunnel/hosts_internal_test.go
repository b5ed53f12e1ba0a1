package tunnel

import (
	"context"
	"net"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// pipeConn is a control stream without a session.
type pipeConn struct{ net.Conn }

func (pipeConn) Shrink() {}

// TestAPausedGuestHasTheNewestStatesOfItsPortsWaitingOnly: while it does not read, the host
// goes on telling it.
func TestAPausedGuestHasTheNewestStatesOfItsPortsWaitingOnly(t *testing.T) {
	hostEnd, guestEnd := net.Pipe()
	defer guestEnd.Close()
	l := &Link{control: newControl(pipeConn{hostEnd}, nil, budget.New(budget.Link))}
	many := make([]wire.PortState, wire.MaxListeners)
	for i := range many {
		many[i] = wire.PortState{Proto: "tcp", Port: 1, Outcome: wire.PortTaken, Host: 1}
	}
	for range 1000 {
		l.TellPorts(many)
	}
	l.TellPorts([]wire.PortState{{Proto: "udp", Port: 7, Outcome: wire.PortForwarded, Host: 8}})
	l.control.send(&wire.PingMessage{Seq: 5})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.control.write(ctx) }()

	r := wire.MessageReader{R: guestEnd}
	for _, want := range []string{"ping", "states"} {
		b, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch m, err := wire.DecodeMessage(b); m := m.(type) {
		case *wire.PingMessage:
			if want != "ping" {
				t.Error("a second ping")
			}
		case *wire.PortStatesMessage:
			if len(m.Ports) != 1 || m.Ports[0].Port != 7 {
				t.Errorf("the first states are of %d ports", len(m.Ports))
			}
		default:
			t.Errorf("%T, %v", m, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
