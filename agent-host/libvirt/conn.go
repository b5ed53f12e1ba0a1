package libvirt

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
)

// The library's calls take no context. A call that lasts longer than its limit ends by closing the connection.
const (
	openLimit    = 10 * time.Second
	refreshLimit = 20 * time.Second
	closeLimit   = time.Second
)

// Conn is an open connection to a libvirt daemon. Its methods may be called by one goroutine at a time. Those that ask
// the daemon and take no context are called between [Conn.Bound] and its end.
type Conn struct {
	lv     *golibvirt.Libvirt
	nc     *lifeline
	driver string
	events sync.WaitGroup
}

// Open connects to the daemon that uri names and asks it for its QEMU driver; see [DefaultURI] for the empty string. The
// context bounds the opening, not the connection. Errors wrap [ErrUnavailable] when nothing answers.
func Open(ctx context.Context, uri string) (*Conn, error) {
	if uri == None {
		return nil, fmt.Errorf("%w: switched off with %q", ErrUnavailable, None)
	}
	d, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	nc, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &Conn{nc: &lifeline{Conn: nc, lost: make(chan struct{})}, driver: d.driver}
	c.lv = golibvirt.NewWithDialer(dialers.NewAlreadyConnected(c.nc))
	defer c.Bound(ctx, openLimit)()
	if err := c.lv.ConnectToURI(golibvirt.ConnectURI(d.driver)); err != nil {
		c.nc.Close()
		return nil, adviseOnOpening(fmt.Errorf("%w: opening %s: %w", ErrUnavailable, d.driver, err))
	}
	return c, nil
}

// Close says goodbye and frees the connection. It lets the daemon hang up first, which would log an error otherwise.
func (c *Conn) Close() error {
	hangUp := time.AfterFunc(closeLimit, func() { c.nc.Close() })
	if err := c.lv.ConnectClose(); err == nil {
		<-c.nc.lost
	}
	hangUp.Stop()
	c.nc.Close()
	c.events.Wait()
	return nil
}

// Client makes calls that this package has no methods for.
func (c *Conn) Client() *golibvirt.Libvirt { return c.lv }

// Driver is the URI that the daemon was asked for: [SystemURI], [SessionURI], or what else names a driver there.
func (c *Conn) Driver() string { return c.driver }

// Bound closes the connection, and so ends the call in progress, when ctx ends or the limit passes before the returned
// function is called.
func (c *Conn) Bound(ctx context.Context, limit time.Duration) (done func()) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	stop := context.AfterFunc(ctx, func() { c.nc.Close() })
	return func() {
		stop()
		cancel()
	}
}

// subscribe calls on for every event of the kind until the connection ends. The subscription is never cancelled by
// itself: the library deadlocks when an event arrives between the two halves of its cancellation.
func (c *Conn) subscribe(id golibvirt.DomainEventID, on func(event any)) error {
	ch, err := c.lv.SubscribeEvents(context.Background(), id, nil)
	if err != nil {
		return fmt.Errorf("subscribing to libvirt events: %w", err)
	}
	c.events.Go(func() {
		for event := range ch {
			on(event)
		}
	})
	return nil
}

// Lookup finds a domain by name or UUID. The error wraps [ErrNoDomain] where there is none.
func (c *Conn) Lookup(name string) (golibvirt.Domain, error) {
	dom, err := c.lv.DomainLookupByName(name)
	if err == nil {
		return dom, nil
	}
	if id, ok := parseUUID(name); ok && golibvirt.IsNotFound(err) {
		dom, err = c.lv.DomainLookupByUUID(id)
	}
	if golibvirt.IsNotFound(err) {
		return dom, Advise(fmt.Errorf("%w: %q", ErrNoDomain, name), fmt.Sprintf("see: virsh -c %s list --all", c.driver))
	}
	if err != nil {
		return dom, fmt.Errorf("looking up domain %q: %w", name, err)
	}
	return dom, nil
}

// lifeline is a connection that tells when it is lost: the library's own notice can be missed when the daemon goes away
// in the middle of the opening.
type lifeline struct {
	net.Conn
	lost chan struct{}
	once sync.Once
}

func (l *lifeline) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil {
		l.once.Do(func() { close(l.lost) })
	}
	return n, err
}
