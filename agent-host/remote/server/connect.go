package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// agentTimeout bounds a connection to a guest agent, which takes no time where there is one.
const agentTimeout = 5 * time.Second

// resetGrace is how long what came before a reset may take to reach a VM.
const resetGrace = 2 * time.Second

// serveStream connects one stream of the session to where it is to lead, and carries it to its end.
func (s *Server) serveStream(ctx context.Context, c *mux.Conn) {
	defer context.AfterFunc(ctx, c.Abort)()
	_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	q, err := protocol.ReadRequest(c)
	_ = c.SetReadDeadline(time.Time{})
	if err != nil {
		c.Abort()
		return
	}
	c.BelongTo(q.UUID)
	share, err := s.shares.take(q.UUID, connectionLimit())
	var to relay.Conn
	if err == nil {
		defer s.shares.drop(q.UUID)
		to, err = s.connect(ctx, q)
	}
	if err != nil {
		_, _ = c.Write(protocol.AppendAnswer(nil, err))
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c) // until the host agent has done with it
		_ = c.Close()
		return
	}
	c.WhenReset(func() { time.AfterFunc(resetGrace, to.Abort) }) // a write to a VM that does not read would not notice
	stream := &answered{fair: &fair{c, share, s.ended}, answer: protocol.AppendAnswer(nil, nil)}
	if q.To == protocol.ToBridge { // of whose service the host agent wants to know whether it is there
		if _, err := stream.Write(nil); err != nil {
			to.Abort()
			c.Abort()
			return
		}
	}
	stop := context.AfterFunc(ctx, to.Abort)
	defer stop()
	relay.Relay(to, stream, new(relay.Counters), func(error) {})
}

func (s *Server) connect(ctx context.Context, q protocol.Request) (relay.Conn, error) {
	d, err := s.domain(q.UUID)
	if err != nil {
		return nil, err
	}
	if q.To == protocol.ToBridge {
		return dialBridge(ctx, d, q.Port)
	}
	return dialAgent(ctx, d)
}

func dialAgent(ctx context.Context, d libvirt.Domain) (relay.Conn, error) {
	e, err := endpointOf(d)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	c, err := endpoint.Dial(ctx, e, nil)
	if err != nil {
		return nil, err
	}
	if err := reserve.CheckConn(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	conn, err := relay.Raw(c)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return conn, nil
}

func dialBridge(ctx context.Context, d libvirt.Domain, port uint16) (relay.Conn, error) {
	if !d.BridgeIP.IsValid() {
		return nil, fmt.Errorf("%s has no address on a network of this host", d.Name)
	}
	dialer := net.Dialer{Timeout: wire.DialTimeout, Control: relay.ControlTCP}
	c, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(d.BridgeIP, port).String())
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	if err := errors.Join(dial.NotToItself(tcp), reserve.CheckConn(tcp)); err != nil {
		_ = tcp.Close()
		return nil, err
	}
	return relay.TCP(tcp), nil
}

// endpointOf is how the guest agent of a domain is reached from here.
func endpointOf(d libvirt.Domain) (endpoint.Endpoint, error) {
	if d.Endpoint == "" {
		return endpoint.Endpoint{}, errors.New(d.Problem)
	}
	e, err := endpoint.Parse(d.Endpoint)
	if err == nil && e.Scheme == endpoint.SchemeExec {
		err = errors.New("a relay runs no commands")
	}
	return e, err
}

// agentOf says what the host agent is told of that.
func agentOf(d libvirt.Domain) (kind, problem string) {
	if d.State == libvirt.Off {
		return "", ""
	}
	e, err := endpointOf(d)
	if err != nil {
		return "", err.Error()
	}
	return e.Scheme, ""
}

// answered is a stream behind whose answer comes what is written.
type answered struct {
	*fair
	mu     sync.Mutex
	answer []byte // not sent yet
}

func (c *answered) Write(b []byte) (int, error) {
	c.mu.Lock()
	before := c.answer
	c.answer = nil
	c.mu.Unlock()
	if before == nil {
		return c.fair.Write(b)
	}
	n, err := c.fair.Write(append(before, b...))
	return max(0, n-len(before)), err
}

// CloseWrite ends the direction, behind the answer.
func (c *answered) CloseWrite() error {
	if _, err := c.Write(nil); err != nil {
		return err
	}
	return c.fair.CloseWrite()
}
