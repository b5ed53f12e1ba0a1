package hostagent

import (
	"context"
	"os"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/filewatch"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

const (
	// knockPause is between two knocks of any guests: one that knocks without end costs
	// little. A knock is a hint; the others wait in the listener's backlog.
	knockPause = 20 * time.Millisecond
	// knockedEvery is how often a VM is dialled for a knock of its guest.
	knockedEvery = time.Second
)

// hearKnocks listens for guest agents that come up, if nobody does yet and that can be.
func (a *Agent) hearKnocks() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.knocks != nil || a.stopped {
		return
	}
	k, err := endpoint.ListenKnocks()
	if err != nil {
		return // dialled they are all the same, if later
	}
	a.knocks = k
	ctx := a.ctx
	a.group.Go(func() error {
		defer context.AfterFunc(ctx, func() { _ = k.Close() })()
		for {
			cid, err := k.Next()
			if err == nil {
				a.knocked(cid)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(knockPause):
			}
		}
	})
}

// knocked has the VM dialled whose guest agent has come up. A link to the one before may stand as long as nothing is
// sent: a VM that is reset says nothing of its connections.
func (a *Agent) knocked(cid uint32) {
	for _, v := range a.snapshot() {
		if v.Endpoint.Scheme == endpoint.SchemeVsock && v.Endpoint.CID == cid {
			v.mu.Lock()
			if v.link != nil {
				v.link.Ask()
			}
			v.mu.Unlock()
			select {
			case v.knocks <- struct{}{}:
				v.log.Info("the guest agent has come up")
			default:
			}
		}
	}
}

// knock has a VM dialled at once.
func (a *Agent) knock(name string) {
	a.mu.Lock()
	v := a.find(name)
	a.mu.Unlock()
	if v == nil {
		return
	}
	select {
	case v.knocks <- struct{}{}:
	default:
	}
}

// pause waits for so long before the next attempt to reach the guest agent, but not
// longer than until there is a sign of it. was is the socket that leads to it, as it was
// before the last attempt.
func (v *vm) pause(ctx context.Context, wait time.Duration, was os.FileInfo) {
	if deaf := min(wait, time.Until(v.knockedAt.Add(knockedEvery))); deaf > 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(deaf):
			wait -= deaf
		}
	}
	var files <-chan struct{}
	var w *filewatch.Watcher
	path := v.socket()
	if path != "" {
		w = filewatch.New()
		defer w.Close()
		w.Expect(false, []string{path})
		files = w.C
	}
	over := time.After(wait)
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-v.knocks:
			v.knockedAt = time.Now()
			return
		case <-files:
			if now, err := os.Stat(path); err == nil && !same(was, now) {
				v.knockedAt = time.Now()
				return
			}
			w.Expect(false, []string{path})
		}
	}
}

// socket is the unix socket that appears with the guest agent or its VM; "" for none.
func (v *vm) socket() string {
	switch v.Endpoint.Scheme {
	case endpoint.SchemeUnix, endpoint.SchemeSerial, endpoint.SchemeHybrid:
		return v.Endpoint.Path
	}
	return ""
}

// same reports whether a file is as it was; was is nil for one that was not there.
func same(was, now os.FileInfo) bool {
	return was != nil && os.SameFile(was, now) && was.ModTime().Equal(now.ModTime())
}
