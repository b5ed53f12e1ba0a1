package page

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

const (
	// retryEvery is the time between two attempts to get the addresses. A program that has left one has
	// its time to come back besides, as with any port.
	retryEvery = time.Second
	// maxClients have a connection to an address at a time, those to ports by name among them; others wait.
	maxClients = 1024
	// headWithin is the time that a client has for the head of a request, and idleClient until it sends one.
	headWithin = 5 * time.Second
	idleClient = 2 * time.Minute
)

// Config is what a [Page] needs.
type Config struct {
	// Addresses are on loopback, and served all or none, but for one that this host does not have.
	Addresses []netip.AddrPort
	// Listen opens one. Its error says who has it.
	Listen func(netip.AddrPort) (net.Listener, error)
	// API answers below /v1/, for who has a session.
	API http.Handler
	// Names are those of the VMs there are, and VMs tells of them.
	Names func() []string
	VMs   func(status.Query) iter.Seq[status.VM]
	// Carried finds the service of a VM whose port, or the label of whose rule, a client means that has connected
	// to an address of the page, and gives a key of its own for it, or for this client of it; nil where there is none on the host.
	Carried func(vm string, client, at netip.AddrPort, meant func(port uint16, label string) bool) (key string, connect func(context.Context) (net.Conn, error))
	Log     *slog.Logger
}

// Page serves the page, and ports by name.
type Page struct {
	Config
	own    map[string]bool // what a Host may be that means the page
	suffix string          // of names: ".localhost:7070"
	labels labels
	tokens tokens
	pages  http.Handler
	names  *names

	mu    sync.Mutex
	state status.Page
}

// New returns a page that is not served yet.
func New(c Config) *Page {
	p := &Page{Config: c, own: make(map[string]bool), suffix: ".localhost" + portOf(c.Addresses[0])}
	p.state = status.Page{State: status.Claim, Addresses: []string{}}
	for _, a := range c.Addresses {
		p.state.Addresses = append(p.state.Addresses, a.String())
		host := a.Addr().String()
		if a.Addr().Is6() {
			host = "[" + host + "]"
		}
		p.own[host+portOf(a)] = true
		if isLocalhost(a.Addr()) {
			p.own["localhost"+portOf(a)] = true
		}
	}
	p.pages = p.handlePages()
	p.names = newNames(c.Log)
	return p
}

// portOf is a port as a browser has it in Host: the usual one is left out.
func portOf(a netip.AddrPort) string {
	if a.Port() == 80 {
		return ""
	}
	return fmt.Sprintf(":%d", a.Port())
}

// isLocalhost reports whether localhost leads to an address.
func isLocalhost(ip netip.Addr) bool {
	return ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback()
}

// Status tells where the page is.
func (p *Page) Status() *status.Page {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.state
	return &st
}

// Run serves until ctx ends, which gives nil. While something has an address it waits for that.
func (p *Page) Run(ctx context.Context) error {
	defer p.names.close()
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	logged := ""
	for {
		listeners, err := p.listen()
		if err == nil {
			tick.Stop()
			return p.serve(ctx, listeners)
		}
		p.mu.Lock()
		p.state.Reason = err.Error()
		p.mu.Unlock()
		if err.Error() != logged {
			logged = err.Error()
			p.Log.Warn("the page is not served yet", "reason", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// listen opens all addresses that this host has, or none.
func (p *Page) listen() (all []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				_ = l.Close()
			}
		}
	}()
	var missing error
	for _, a := range p.Addresses {
		l, err := p.Listen(a)
		switch {
		case err == nil:
			all = append(all, l)
		case len(p.Addresses) > 1 && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)):
			missing = err
		case errors.Is(err, fs.ErrPermission):
			return all, fmt.Errorf("%w; name a port from 1024 up with --http", err)
		default:
			return all, err
		}
	}
	if len(all) == 0 {
		return nil, missing
	}
	return all, nil
}

func (p *Page) serve(ctx context.Context, listeners []net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           p,
		Protocols:         protocols,
		ReadHeaderTimeout: headWithin,
		IdleTimeout:       idleClient,
		MaxHeaderBytes:    64 << 10, // cookies of services are among them
		ErrorLog:          slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withClient,
		// What the server would answer itself is for a Host too.
		DisableGeneralOptionsHandler: true,
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	addresses := make([]string, len(listeners))
	for i, l := range listeners {
		addresses[i] = l.Addr().String()
	}
	p.mu.Lock()
	p.state = status.Page{Addresses: addresses, State: status.Active}
	p.mu.Unlock()
	p.Log.Info("the page is served", "addresses", addresses)
	group, accepting := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error {
			err := srv.Serve(&clients{reserve.NewListener(l), accepting, p, semaphore.NewWeighted(maxClients)})
			if ctx.Err() == nil {
				_ = srv.Close() // the others are not served without this one
			}
			return err
		})
	}
	err := group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve the page: %w", err)
}
