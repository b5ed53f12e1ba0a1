package hostagent

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// Connect connects to a TCP port of a VM as a client of its forward does, also where rules keep
// the port in the guest: who asks for it gets it, and nobody else. What is returned is one end of
// a connection on loopback, of which this agent relays the other: unlike a pair of unix sockets
// it can be reset. It is nil, without an error, where there is no VM of that name.
func (a *Agent) Connect(ctx context.Context, vm string, port uint16) (*net.TCPConn, error) {
	a.mu.Lock()
	v := a.find(vm)
	a.mu.Unlock()
	if v == nil {
		return nil, nil
	}
	serve, err := a.way(ctx, v, port)
	if err != nil {
		return nil, err
	}
	return connectBy(ctx, serve)
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
			return connectBy(ctx, a.served(s.Apart()))
		}
	}
	return nil, fmt.Errorf("%s of %s is not forwarded any more", cmp.Or(e.Socket, strconv.Itoa(int(e.Port))), e.VM)
}

// connectBy returns one end of a connection whose other end is served.
func connectBy(ctx context.Context, serve func(*relay.Client) error) (*net.TCPConn, error) {
	theirs, ours, err := loopbackPair(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect within this machine: %w", err)
	}
	client, err := relay.NewClient(ours)
	if err == nil {
		err = serve(client)
	} else {
		_ = ours.Close()
	}
	if err != nil {
		_ = theirs.Close()
		return nil, err
	}
	return theirs, nil
}

// way tells how a client of a port is served, if that can be.
func (a *Agent) way(ctx context.Context, v *vm, port uint16) (func(*relay.Client) error, error) {
	s := v.forwards.Service(port)
	switch {
	case s == nil && port == sshPort && v.Endpoint.Vsock():
		return func(c *relay.Client) error { return a.serveSSH(ctx, v, c) }, nil
	case s == nil && !v.linked():
		return nil, fmt.Errorf("nobody knows whether something listens on port %d of %s: the guest agent does not answer", port, v.Name)
	case s == nil:
		return nil, fmt.Errorf("nothing is announced on port %d of %s", port, v.Name)
	case s.Path() == "":
		return nil, fmt.Errorf("port %d of %s: %w", port, v.Name, serve.ErrNoWay)
	}
	return a.served(s), nil
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

// pairTimeout bounds how long the two ends of a connection within this machine take to meet.
const pairTimeout = 5 * time.Second

// loopbackPair is socketpair(2) for TCP. What else connects to the listener in between is reset.
func loopbackPair(ctx context.Context) (theirs, ours *net.TCPConn, err error) {
	ctx, cancel := context.WithTimeout(ctx, pairTimeout)
	defer cancel()
	lc := net.ListenConfig{Control: relay.ControlTCP, KeepAlive: -1}
	lc.SetMultipathTCP(false) // whose connections do not inherit what a listener is set to
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp4", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	for {
		o, err := l.Accept()
		if err != nil {
			_ = c.Close()
			return nil, nil, err
		}
		if o.RemoteAddr().String() != c.LocalAddr().String() {
			_ = o.Close()
			continue
		}
		if err := reserve.CheckConn(o); err != nil {
			_ = c.Close()
			_ = o.Close()
			return nil, nil, err
		}
		return c.(*net.TCPConn), o.(*net.TCPConn), nil
	}
}
