package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/mux"
)

// limits are for what waits for VMs that do not read: of the VM for which the most waits, the connection for which the most waits is
// reset. Thin data is the host agent's own doing.
var limits = mux.Limits{Waiting: 64 << 20, Held: 192 << 20, Thin: budget.Limits{Share: 0.5, Burst: time.Second}}

const (
	// maxStreams is how many streams there may be at a time.
	maxStreams = 16 << 10
	// helloTimeout bounds the host agent's first words, and those of a stream.
	helloTimeout = 30 * time.Second
)

// Server is a relay.
type Server struct {
	// Version is that of this agent.
	Version string
	// Watch reports the domains until its context ends, as the Run method of [libvirt.Watcher] does.
	Watch func(ctx context.Context, seen func(libvirt.Snapshot)) error
	Log   *slog.Logger

	mu      sync.Mutex
	domains map[uuid.UUID]libvirt.Domain
	latest  libvirt.Snapshot
	changed chan struct{} // has a token when there is something to tell

	shares shares
	ended  <-chan struct{} // closed with the session
}

// Serve serves a host agent until the connection or ctx ends, and returns nil then, with every connection reset.
func (s *Server) Serve(ctx context.Context, conn net.Conn) error {
	s.changed = make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	if _, err := conn.Write(protocol.RelayLine(s.Version)); err != nil {
		return fmt.Errorf("greet the host agent: %w", err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	agent, err := protocol.ReadHostLine(conn)
	if err != nil {
		return fmt.Errorf("greeting of the host agent: %w", err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	s.Log.Info("serving a host agent", "version", agent)
	admit := func(open int) error {
		if open >= maxStreams {
			return fmt.Errorf("%d streams are open, which is the most", open)
		}
		return nil
	}
	session, err := mux.NewWithResets(conn, false, limits, budget.New(budget.Limits{Share: 0.5, Burst: time.Second}), s.Log, admit)
	if err != nil {
		return err
	}
	defer session.Close()
	s.ended = session.CloseChan()
	return s.serve(ctx, session)
}

func (s *Server) serve(ctx context.Context, session *mux.Session) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first, err := session.Accept(ctx)
	if err != nil {
		return ended(err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case <-session.CloseChan():
			return io.EOF
		case <-ctx.Done():
			return session.Close()
		}
	})
	group.Go(func() error { return s.Watch(ctx, s.seen) })
	group.Go(func() error { return s.tell(ctx, first) })
	group.Go(func() error {
		for {
			c, err := session.Accept(ctx)
			if err != nil {
				return err
			}
			group.Go(func() error { s.serveStream(ctx, c); return nil })
		}
	})
	return ended(group.Wait())
}

// ended makes nil of how a session ends in order.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// seen takes in what there is.
func (s *Server) seen(now libvirt.Snapshot) {
	domains := make(map[uuid.UUID]libvirt.Domain)
	for _, d := range now.Domains {
		if id, err := uuid.Parse(d.UUID); err == nil {
			domains[id] = d
		}
	}
	s.mu.Lock()
	s.domains, s.latest = domains, now
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// domain is one that runs.
func (s *Server) domain(id uuid.UUID) (libvirt.Domain, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.domains[id]
	switch {
	case !ok:
		return d, fmt.Errorf("there is no VM %v", id)
	case d.State == libvirt.Off:
		return d, fmt.Errorf("%s does not run", d.Name)
	}
	return d, nil
}

// tell sends what there is whenever it has changed. Of what changes meanwhile only the last is sent.
func (s *Server) tell(ctx context.Context, to io.Writer) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		s.mu.Lock()
		now := s.latest
		s.mu.Unlock()
		b, err := protocol.AppendInventory(nil, inventory(now))
		if err == nil {
			_, err = to.Write(b)
		}
		if err != nil {
			return err
		}
	}
}

func inventory(s libvirt.Snapshot) protocol.Inventory {
	var v protocol.Inventory
	if s.Err != nil {
		v.Error = s.Err.Error()
		if hint := libvirt.Hint(s.Err); hint != "" {
			v.Error += "; " + hint
		}
	}
	for _, d := range s.Domains {
		id, err := uuid.Parse(d.UUID)
		if err != nil {
			continue
		}
		kind, problem := agentOf(d)
		v.Domains = append(v.Domains, protocol.Domain{
			Name: d.Name, UUID: id, State: string(d.State), Boots: d.Boots, Agent: kind, Problem: problem, Bridge: bridge(d.BridgeIP),
		})
	}
	return v
}

func bridge(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }
