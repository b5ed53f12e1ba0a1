package tunnel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// Heartbeats.
const (
	pingInterval = time.Second
	// idleInterval is that of a link that carries nothing, while the guest answers: each costs
	// either agent about thirty context switches. A connection that begins asks at once.
	idleInterval = 20 * time.Second
	// silentAfter is how long without a reply makes a link silent.
	silentAfter = 4 * time.Second
	// probeInterval is how often a silent guest is tried anew beside the
	// link, where the endpoint allows it.
	probeInterval = 3 * time.Second
)

// LastSeen is when the guest was last heard.
func (l *Link) LastSeen() time.Time { return time.Now().Add(l.control.lastHeard() - clock.Now()) }

// ClockAhead is [heartbeat.Pings.Ahead] of the guest.
func (l *Link) ClockAhead() time.Duration { return l.pings.Ahead() }

// Silent reports that the guest has stopped answering although the connection
// stands: most likely the VM is paused. A guest that was not asked is not silent. What
// it reports is in the log.
func (l *Link) Silent() bool {
	heard := max(l.control.lastHeard(), l.pings.AskedAt())
	silent := l.pings.Waiting() && l.pings.Silence(clock.Now(), heard) > silentAfter
	if l.silent.Load() != silent && l.silent.CompareAndSwap(!silent, silent) {
		if silent {
			l.cfg.log().Info("guest gives no sign of life; it may be paused")
		} else {
			l.cfg.log().Info("guest is back")
		}
		if l.cfg.Silence != nil {
			l.cfg.Silence(silent)
		}
	}
	return silent
}

// becomeIdle has heartbeats be rare from now on if the link carries nothing but its control
// stream, until [Link.becomeBusy], and reports whether it does.
func (l *Link) becomeIdle() bool {
	l.idle.Store(true)
	if l.ends.Count() == 0 && l.session.NumStreams() <= 1 {
		return true
	}
	l.idle.Store(false)
	return false
}

// Ask has the guest of a link that carries nothing asked for a sign of life at once, instead of at the next heartbeat:
// for who wants to know of it. It does not wait; a guest that owes the answer is [Link.Silent] a few seconds later.
func (l *Link) Ask() { l.becomeBusy() }

// becomeBusy ends that, for a connection that begins.
func (l *Link) becomeBusy() {
	if l.idle.Load() && l.idle.Swap(false) {
		select {
		case l.busy <- struct{}{}:
		default:
		}
	}
}

// heartbeat pings, and looks after a guest that stopped answering: a paused one
// is waited for, one that was replaced ends the link.
func (l *Link) heartbeat(ctx context.Context) error {
	next := time.NewTimer(pingInterval)
	defer next.Stop()
	var lastProbe time.Time
	for beats := 1; ; beats++ {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		case <-l.busy: // what has begun is not to wait for the next heartbeat of an idle link
		}
		now, interval := clock.Now(), pingInterval
		if !l.pings.Waiting() && l.becomeIdle() {
			interval = idleInterval
		}
		onTime := l.pings.Beat(now, interval)
		next.Reset(interval)
		// One ping that waits for a paused guest is as good as many.
		if !onTime || !l.Silent() || beats%8 == 0 {
			l.control.send(&wire.PingMessage{Seq: l.pings.Ask(now)})
		}
		if !l.Silent() || !l.endpoint.Many() || time.Since(lastProbe) < probeInterval {
			continue
		}
		lastProbe = time.Now()
		l.pings.Beat(now, interval+probeInterval) // the next one may have to wait for the probe, and is not late by that
		if err := l.probe(ctx); err != nil {
			return err
		}
	}
}

// probe tries the endpoint beside the silent link. A guest that cannot be
// reached in time is taken for paused and is not an error.
func (l *Link) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeInterval)
	defer cancel()
	conn, a, err := connect(ctx, l.endpoint, l.cfg)
	switch {
	case err == nil:
		_ = conn.Close()
		if a.Instance != l.agreed.Instance {
			return errors.New("guest agent was restarted")
		}
		return nil
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ENODEV), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("guest agent is gone: %w", err)
	}
	return nil
}
