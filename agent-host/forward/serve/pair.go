package serve

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// Connect returns one end of a connection whose other end is served.
func Connect(ctx context.Context, pair func(context.Context) (theirs, ours net.Conn, err error), serve func(*relay.Client) error) (net.Conn, error) {
	theirs, ours, err := pair(ctx)
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

// pairTimeout bounds how long the two ends of a connection within this machine take to meet.
const pairTimeout = 5 * time.Second

// LoopbackPair is socketpair(2) for TCP. What else connects to the listener in between is reset.
func LoopbackPair(ctx context.Context) (theirs, ours net.Conn, err error) {
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
		return c, o, nil
	}
}
