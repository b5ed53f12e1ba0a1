package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/yamux"

	"github.com/rum-vm/rum-agent/agent-host/backoff"
	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/remote/address"
	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/relay"
)

var (
	// limits are for what waits on the session for clients that do not read, as on a link.
	limits = mux.Limits{Waiting: 16 << 20, Held: 48 << 20, Thin: budget.Limits{Share: 0.16, Burst: time.Second / 4}}
	// frames is for what the relay sends that brings no data. A connection takes 10 us of it.
	frames = budget.Limits{Share: 0.16, Burst: time.Second / 4}
)

// exitGrace is how long ssh has to say how the relay ended.
const exitGrace = 2 * time.Second

// greetTimeout bounds login and greeting.
const greetTimeout = 30 * time.Second

// Host is another host whose VMs are served here. Its methods may be called by several goroutines at once.
type Host struct {
	Address address.Address
	// Version is that of this agent.
	Version string
	Log     *slog.Logger

	mu      sync.Mutex
	session *mux.Session // nil while there is none
	why     error        // why there is none

	last  libvirt.Snapshot // as told; Run's
	comes arrivals
}

// Run calls seen with the VMs of the host at once and whenever they differ, until ctx ends; then it returns nil. While the
// host cannot be asked they are those last seen, with the reason. The calls come from one goroutine.
func (h *Host) Run(ctx context.Context, seen func(libvirt.Snapshot)) error {
	var wait backoff.Backoff
	for ctx.Err() == nil {
		began := time.Now()
		told, err := h.serve(ctx, seen)
		if ctx.Err() != nil {
			break
		}
		now := time.Now()
		if told {
			wait.LostLink(now, now.Sub(began))
		}
		h.lost(err, seen)
		select {
		case <-ctx.Done():
		case <-time.After(wait.Next(now)):
		}
	}
	return nil
}

// lost notes why there is no session. The same reason is told once.
func (h *Host) lost(err error, seen func(libvirt.Snapshot)) {
	h.mu.Lock()
	h.session, h.why = nil, err
	h.mu.Unlock()
	if h.last.Err != nil && h.last.Err.Error() == err.Error() {
		return
	}
	h.Log.Warn("the host cannot be asked; its VMs stay as last seen", "error", err)
	h.last.Err = err
	seen(h.last)
}

// serve runs ssh to its end. It reports whether the relay told anything.
func (h *Host) serve(ctx context.Context, seen func(libvirt.Snapshot)) (told bool, err error) {
	var said sshSaid
	ssh, err := endpoint.Run(said.line, "ssh", h.Address.SSH(h.Address.Relay()...)...)
	if err != nil {
		return false, libvirt.Advise(fmt.Errorf("ssh: %w", err), "install the package openssh-client")
	}
	defer ssh.Close()
	defer context.AfterFunc(ctx, func() { _ = ssh.Close() })()
	peer, err := h.greet(ssh)
	if err != nil {
		_ = ssh.CloseWithin(exitGrace)
		return false, h.explain(err, ssh.ExitStatus(), &said)
	}
	session, err := mux.NewWithResets(&ssh.Pipe, true, limits, budget.New(frames), h.Log, func(int) error {
		return errors.New("a relay opens none")
	})
	if err != nil {
		return false, err
	}
	defer session.Close()
	first, err := session.Open()
	if err != nil {
		return false, h.cut(why(session, err), ssh, &said)
	}
	_ = first.SetReadDeadline(time.Now().Add(greetTimeout)) // for the first list
	work := budget.New(budget.Link)
	for {
		v, size, err := protocol.ReadInventory(first)
		if err != nil {
			return told, h.cut(why(session, err), ssh, &said)
		}
		began := clock.Now()
		if !told {
			told = true
			_ = first.SetReadDeadline(time.Time{})
			h.mu.Lock()
			h.session, h.why = session, nil
			h.mu.Unlock()
			h.Log.Info("serving the VMs of another host", "address", h.Address, "version", peer, "domains", len(v.Domains))
		}
		h.tell(h.snapshot(v), seen)
		work.Spend(budget.MessageCost + time.Duration(size)*budget.ByteCost + clock.Now() - began)
		if err := work.Wait(session.CloseChan()); err != nil {
			return told, h.cut(why(session, err), ssh, &said)
		}
	}
}

// why ends a session and returns the reason that it had already, or else err: a stream of it only says that it is over.
func why(session *mux.Session, err error) error {
	_ = session.Close()
	if _, serr := session.AcceptStream(); serr != nil && !errors.Is(serr, yamux.ErrSessionShutdown) {
		return serr
	}
	return err
}

// greet finds out whether a relay answers.
func (h *Host) greet(ssh net.Conn) (version string, err error) {
	_ = ssh.SetDeadline(time.Now().Add(greetTimeout))
	if _, err := ssh.Write(protocol.HostLine(h.Version)); err != nil {
		return "", err
	}
	version, err = protocol.ReadRelayLine(ssh)
	if err != nil {
		return version, err
	}
	return version, ssh.SetDeadline(time.Time{})
}

func (h *Host) tell(now libvirt.Snapshot, seen func(libvirt.Snapshot)) {
	h.last = now
	seen(now)
}

// snapshot makes the VMs of an inventory those of this agent.
func (h *Host) snapshot(v protocol.Inventory) libvirt.Snapshot {
	var s libvirt.Snapshot
	if v.Error != "" {
		s.Err = fmt.Errorf("on %s: %s", h.Address.Name(), v.Error)
	}
	left := 0
	for _, d := range v.Domains {
		if !h.comes.admit(d.UUID) {
			left++
			continue
		}
		s.Domains = append(s.Domains, libvirt.Domain{
			Name: h.Address.Name() + "/" + d.Name, UUID: d.UUID.String(), State: libvirt.State(d.State), Boots: d.Boots,
			Endpoint: d.Agent, Problem: d.Problem, BridgeIP: d.Bridge,
		})
	}
	if left > 0 {
		h.Log.Warn("VMs of the host come and go too fast, and some are left out", "left out", left)
	}
	return s
}

// Name is what the host is called.
func (h *Host) Name() string { return h.Address.Name() }

// Endpoint is that of a guest agent there, which is reached in a way of that kind.
func (h *Host) Endpoint(d libvirt.Domain) (endpoint.Endpoint, error) {
	id, err := uuid.Parse(d.UUID)
	if err != nil {
		return endpoint.Endpoint{}, err
	}
	return endpoint.Remote(h.Address.Name(), d.Endpoint, &guestAgent{h, id}), nil
}

// guestAgent is an [endpoint.Dialer].
type guestAgent struct {
	host *Host
	id   uuid.UUID
}

func (g *guestAgent) Dial(ctx context.Context) (net.Conn, error) {
	c, err := g.host.open(ctx, protocol.Request{To: protocol.ToAgent, UUID: g.id})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialBridge connects to a TCP port of a VM at its bridge address there. The error is one of [protocol.RefusedError] where
// the relay could not.
func (h *Host) DialBridge(ctx context.Context, d libvirt.Domain, port uint16) (relay.Conn, error) {
	id, err := uuid.Parse(d.UUID)
	if err != nil {
		return nil, err
	}
	c, err := h.open(ctx, protocol.Request{To: protocol.ToBridge, UUID: id, Port: port})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, c.Abort)
	if _, err = c.Write(nil); err == nil {
		err = c.awaitAnswer()
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Abort()
		return nil, err
	}
	return c, nil
}

// open opens a stream.
func (h *Host) open(ctx context.Context, q protocol.Request) (*conn, error) {
	h.mu.Lock()
	session, why := h.session, h.why
	h.mu.Unlock()
	if session == nil {
		if why == nil {
			why = errors.New("it has not answered yet")
		}
		return nil, fmt.Errorf("no connection to %s: %w", h.Address.Name(), why)
	}
	c, err := session.OpenWithin(ctx)
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w", h.Address.Name(), err)
	}
	c.BelongTo(q.UUID)
	return &conn{Conn: c, host: h.Address.Name(), request: q.Append(nil)}, nil
}
