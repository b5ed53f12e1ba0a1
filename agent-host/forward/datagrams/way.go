package datagrams

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/udp"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// udpRetry is how long a link whose datagram stream failed is left alone.
const udpRetry = time.Second

// way is the datagram stream of a link.
type way struct {
	*udp.Datagrams
	link   *serve.Link
	cancel context.CancelFunc

	// Guarded by Flows.mu.
	failed error
	retry  time.Time // valid with failed

	opened chan struct{} // closed once taken is set
	taken  string        // the path
}

// path is the one taken, or, before that is known, the one expected.
func (w *way) path() string {
	select {
	case <-w.opened:
		return w.taken
	default:
		return w.link.Path
	}
}

// wayThrough returns the datagram stream of a link, which need not be open yet,
// or why there is none.
func (u *Flows) wayThrough(link *serve.Link) (*way, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.way; w != nil {
		switch {
		case w.link != link:
			w.cancel()
		case w.failed == nil:
			return w, nil
		case time.Now().Before(w.retry):
			return nil, w.failed
		}
	}
	w := &way{Datagrams: udp.NewDatagrams(), link: link, opened: make(chan struct{})}
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(u.ctx)
	u.way = w
	u.guest.Go(func() { u.run(ctx, w) })
	return w, nil
}

// run opens the stream and serves it to its end.
func (u *Flows) run(ctx context.Context, w *way) {
	defer w.cancel()
	err := u.serve(ctx, w)
	if ctx.Err() != nil {
		return
	}
	u.guest.Log().Debug("datagram stream ended", "vm", u.guest.Name(), "error", err)
	u.mu.Lock()
	defer u.mu.Unlock()
	w.failed, w.retry = fmt.Errorf("link to the guest agent: %w", err), time.Now().Add(udpRetry)
}

func (u *Flows) serve(ctx context.Context, w *way) error {
	opening, cancel := context.WithTimeout(ctx, serve.OpenTimeout)
	defer cancel()
	conn, path, err := w.link.Open(opening, wire.UDPTarget(), nil)
	if err != nil {
		return err
	}
	w.taken = path
	close(w.opened)
	return w.Run(ctx, conn, u.handler())
}

func (u *Flows) handler() udp.Handler {
	return udp.Handler{Reply: u.fromGuest, Trouble: u.trouble, Budget: u.guest.DatagramBudget()}
}

// overBridge returns the sockets through which flows go without a link. They are
// closed with the VM.
func (u *Flows) overBridge() *udp.Flows {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bridge == nil {
		bridge := udp.NewFlows(maxFlows, u.dialBridge, u.handler())
		u.bridge = bridge
		u.guest.Go(func() {
			<-u.ctx.Done()
			bridge.Close()
		})
	}
	return u.bridge
}

func (u *Flows) dialBridge(to netip.AddrPort) (*udp.Socket, error) {
	if u.guest.IsOurs("udp", to) {
		return nil, fmt.Errorf("bridge address %v is this host's own", to)
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	if err := dial.NotToItself(conn); err != nil {
		return nil, err
	}
	return udp.NewSocket(conn)
}
