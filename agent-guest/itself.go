package guestagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/socketpair"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// maxServed is how many hosts are served by the agent itself at a time.
	maxServed = 8
	// endTimeout bounds how long a host may take to see that what it asked for is all there.
	endTimeout = 10 * time.Second
	// upgradeTimeout bounds how long a binary may take to come.
	upgradeTimeout = 10 * time.Minute
)

// itself is what the agent does for a host that has proved the key, beside connecting it.
type itself struct {
	agent *Agent
	ctx   context.Context // of the agent
	group *errgroup.Group // of the agent: it has one goroutine while anything is served
	busy  chan struct{}
}

func (a *Agent) newItself(ctx context.Context, group *errgroup.Group) *itself {
	return &itself{agent: a, ctx: ctx, group: group, busy: make(chan struct{}, maxServed)}
}

// ErrRestart is the error of [Agent.Run] when another binary has taken the place of this one, and nobody else starts it.
var ErrRestart = errors.New("the agent's binary was replaced")

var errBusyItself = fmt.Errorf("%d hosts are served by the agent itself already, which is the most", maxServed)

// open returns a connection to what a target names.
func (s *itself) open(t wire.Target) (relay.Conn, error) {
	serve, err := s.service(t)
	if err != nil {
		return nil, err
	}
	select {
	case s.busy <- struct{}{}:
	default:
		return nil, errBusyItself
	}
	theirs, ours, err := socketpair.New(context.Background())
	if err != nil {
		<-s.busy
		return nil, err
	}
	s.group.Go(func() error {
		defer func() { <-s.busy }()
		defer ours.Close()
		return serve(ours.(*net.UnixConn))
	})
	return relay.Unix(theirs.(*net.UnixConn)), nil
}

// service is what serves a connection to a target.
func (s *itself) service(t wire.Target) (func(*net.UnixConn) error, error) {
	switch {
	case t.Path == wire.ServiceLog && s.agent.Recent != nil:
		r, err := wire.ReadLogRequest(t.Args)
		return func(c *net.UnixConn) error { s.log(c, r); return nil }, err
	case t.Path == wire.ServiceUpgrade && s.agent.Upgrades != nil:
		r, err := wire.ReadUpgradeRequest(t.Args)
		if err == nil {
			err = s.agent.Upgrades.Check(s.ctx, r)
		}
		return func(c *net.UnixConn) error { return s.upgrade(c, r) }, err
	}
	return nil, fmt.Errorf("%v: %w", t, os.ErrNotExist)
}

// log sends the last lines of the agent's log.
func (s *itself) log(c *net.UnixConn, r wire.LogRequest) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, c)
	}()
	err := s.agent.Recent.Copy(c, int(min(r.Lines, 1<<30)), r.Follow, gone)
	if err == nil {
		err = c.CloseWrite()
	}
	if err == nil {
		err = c.SetReadDeadline(time.Now().Add(endTimeout))
	}
	if err != nil {
		_ = c.Close() // a host that has gone
	}
	<-gone
}

// upgrade puts what comes in the place of the agent's binary, says how that went, and has it started.
func (s *itself) upgrade(c *net.UnixConn, r wire.UpgradeRequest) error {
	stop := context.AfterFunc(s.ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetReadDeadline(time.Now().Add(upgradeTimeout))
	binary := io.LimitReader(c, int64(r.Size))
	err := s.agent.Upgrades.Take(s.ctx, r, binary)
	status, reason := wire.AnswerOK, ""
	if err != nil {
		s.agent.Log.Warn("an upgrade came to nothing", "version", r.Version, "error", err)
		status, reason = wire.AnswerUnreachable, err.Error()
	}
	// Who still sends would not read why. What fails here is a host that has gone: the upgrade is made all the same.
	_, _ = io.Copy(io.Discard, binary)
	_, _ = c.Write(wire.AppendAnswer(nil, status, reason))
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(endTimeout))
	_, _ = io.Copy(io.Discard, c) // until the host has the answer
	switch m := s.agent.Upgrades.Manager; {
	case err != nil:
		return nil
	case m.Exec(), m.Once:
		return ErrRestart
	default:
		if err := m.Restart(s.ctx); err != nil {
			s.agent.Log.Warn("cannot have the new agent started", "error", err)
		}
		return nil
	}
}

// tellLinked has it said when there is a link to a host that has proved the key, beside what is said of hosts already.
func tellLinked(linked func(), server *tunnel.Server) (changed func()) {
	also := server.Changed
	return func() {
		if slices.ContainsFunc(server.Hosts(), func(h tunnel.Host) bool { return h.Auth == "psk" && h.Name != "" }) {
			linked()
		}
		if also != nil {
			also()
		}
	}
}
