package host

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// ListenHere opens a TCP listener of ours whose connections are not relayed: they end as those of
// other servers do. A program of this host that is in the way is a tenant from then on, and has its
// time to come back when it has gone. The error is a [*BindError].
func (as *Addresses) ListenHere(h Addr) (net.Listener, error) {
	as.NewRound()
	if err := as.Obstacle(h, ""); err != nil {
		return nil, &BindError{h, err}
	}
	l, err := as.listenHere(h)
	if errors.Is(err, unix.EADDRINUSE) {
		as.tenantSeen(h)
	}
	if err != nil {
		return nil, &BindError{h, err}
	}
	raw, err := l.SyscallConn()
	if err == nil {
		_, err = as.ours.Add(raw)
	}
	if err != nil {
		_ = l.Close()
		return nil, &BindError{h, err}
	}
	as.store.Keep(h.place(), "", raw)
	return l, nil
}

func (as *Addresses) listenHere(h Addr) (*net.TCPListener, error) {
	if l, ok := as.takeKept(h, "").(*net.TCPListener); ok {
		return l, nil
	}
	c := net.ListenConfig{KeepAlive: -1}
	c.SetMultipathTCP(false)
	l, err := c.Listen(context.Background(), network(h.Addr.Addr()), h.Addr.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
