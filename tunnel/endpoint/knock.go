package endpoint

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
)

// knockPort is where a host agent hears that a guest agent has come up. It is not
// privileged: a knock is a hint, to which the host agent dials as it would anyway.
const knockPort = 10210

const (
	// knockLimit is how long a guest agent that starts with the system tries to knock:
	// the driver of the vsock device may be loaded later.
	knockLimit = 20 * time.Second
	knockAgain = 100 * time.Millisecond
)

// Knock tells the host over vsock that the guest agent is up. It is a hint, and returns
// when it was given, nobody listens for it, or ctx has ended.
func Knock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, knockLimit)
	defer cancel()
	for {
		c, err := vsock.DialContext(ctx, hostCID, knockPort, nil)
		if err == nil {
			_ = c.Close()
			return
		}
		if !errors.Is(err, syscall.ENODEV) && !errors.Is(err, syscall.ENETUNREACH) { // as without the driver
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(knockAgain):
		}
	}
}

// Knocks hears guest agents of this host that come up.
type Knocks struct{ l *vsock.Listener }

// ListenKnocks listens for them. Of several host agents one can, and none where the
// host has no vsock, or its module is not loaded yet.
func ListenKnocks() (*Knocks, error) {
	// Bound to the host's own CID: where the host is a VM itself, the host of that
	// is not to be heard.
	l, err := vsock.ListenContextID(hostCID, knockPort, nil)
	if err != nil {
		return nil, vsockError(err, "vhost_vsock")
	}
	return &Knocks{l}, nil
}

// Next waits for the next knock and returns the CID that it came from.
func (k *Knocks) Next() (cid uint32, err error) {
	c, err := k.l.Accept()
	if err != nil {
		return 0, err
	}
	if peer, ok := c.RemoteAddr().(*vsock.Addr); ok {
		cid = peer.ContextID
	}
	return cid, c.Close()
}

// Close ends the listener, and Next with it.
func (k *Knocks) Close() error { return k.l.Close() }
