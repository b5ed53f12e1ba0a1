package hostagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/socketpair"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

// Connection is how a connection to a port is wanted.
type Connection struct {
	// HandOver: as one that leads to the service itself and that this agent has no part in, if there
	// can be one. Of a link of one connection for all it is an end of a pair of unix sockets.
	HandOver bool
	// Apart: as none of its forward's, so that it is counted nowhere.
	Apart bool
}

// Connect connects to a TCP port of a VM as a client of its forward does, also where rules keep
// the port in the guest: who asks for it gets it, and nobody else. What is returned is one end of
// a connection on loopback, of which this agent relays the other: unlike a pair of unix sockets
// it can be reset. It is nil, without an error, where there is no VM of that name.
func (a *Agent) Connect(ctx context.Context, vm string, port uint16, as Connection) (net.Conn, error) {
	a.mu.Lock()
	v := a.find(vm)
	a.mu.Unlock()
	if v == nil {
		return nil, nil
	}
	s, err := serviceOf(v, port)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return a.connectSSH(ctx, v, as.HandOver)
	}
	if as.Apart {
		s = s.Apart()
	}
	if !as.HandOver {
		return serve.Connect(ctx, serve.LoopbackPair, a.served(s))
	}
	switch conn, err := s.HandOver(ctx); {
	case !errors.Is(err, errors.ErrUnsupported):
		return conn, err
	case s.Path() == stream.PathMux:
		return serve.Connect(ctx, socketpair.New, a.served(s))
	}
	return serve.Connect(ctx, serve.LoopbackPair, a.served(s))
}

// Ask is Connect to what an event is about, if that is forwarded, and counts for nothing: neither
// as a connection of the forward nor, if it fails, as an error.
func (a *Agent) Ask(ctx context.Context, e events.Event) (net.Conn, error) {
	a.mu.Lock()
	v := a.find(e.VM)
	a.mu.Unlock()
	if v == nil {
		return nil, a.noVM(e.VM)
	}
	for _, s := range v.forwards.Services(e.Proto, e.Port) {
		if s.Key().Socket == e.Socket {
			return serve.Connect(ctx, serve.LoopbackPair, a.served(s.Apart()))
		}
	}
	return nil, fmt.Errorf("%s of %s is not forwarded any more", cmp.Or(e.Socket, fmt.Sprint(e.Port)), e.VM)
}

// serviceOf is what serves clients of a port; nil, without an error, for the SSH server of systemd's.
func serviceOf(v *vm, port uint16) (*serve.Service, error) {
	s := v.forwards.Service(port)
	switch {
	case s == nil && port == sshPort && v.Endpoint.Vsock():
		return nil, nil
	case s == nil && !v.linked():
		return nil, fmt.Errorf("nobody knows whether something listens on port %d of %s: the guest agent does not answer", port, v.Name)
	case s == nil:
		return nil, fmt.Errorf("nothing is announced on port %d of %s", port, v.Name)
	case s.Path() == "":
		return nil, fmt.Errorf("port %d of %s: %w", port, v.Name, serve.ErrNoWay)
	}
	return s, nil
}

func (a *Agent) served(s *serve.Service) func(*relay.Client) error {
	return func(c *relay.Client) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.stopped { // and its connections may all have ended
			c.Abort()
			return errStopped
		}
		s.Serve(c)
		return nil
	}
}
