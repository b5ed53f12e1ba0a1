package hostagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/backoff"
	"github.com/rum-vm/rum-agent/agent-host/forward"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/intake"
	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/builds"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// withdrawAfter is how long the host listeners of a VM stay while it can
	// not be reached at all. It spans the restart of a guest agent and a quick
	// reboot, so that clients see a reset and try again instead of finding the
	// port taken by someone else; beyond that the ports are better free.
	withdrawAfter = 10 * time.Second
)

// vm is one supervised VM.
type vm struct {
	VM
	cfg        Config
	log        *slog.Logger
	forwards   *forward.VM
	cancel     context.CancelFunc
	intake     *intake.Intake
	lost       *time.Timer   // calls linkAway
	hearKnocks func()        // has them heard
	knocks     chan struct{} // has a token when the guest has knocked
	knockedAt  time.Time     // when that was last heeded
	life       life
	links      atomic.Uint64 // that there were

	// changing is held, before mu, while forwards are told of a link, which
	// may wait for work on other VMs. A status does not wait for that.
	changing sync.Mutex

	mu         sync.Mutex
	link       *tunnel.Link // nil while there is none that carries
	failed     error        // why the last attempt failed; nil before and after a good one
	scanError  string       // what the guest says of its own scan
	skipped    string       // what it announces and nobody can forward
	peer       tunnel.Peer  // of the last link
	generation uint64
	lastSeen   time.Time
	down       time.Time // since when there is no link
}

func newVM(a *Agent, c VM) *vm {
	v := &vm{
		VM: c, cfg: a.cfg, log: a.cfg.Log.With("vm", c.Name),
		forwards: a.table.Add(c.Name), cancel: func() {}, down: time.Now(),
		hearKnocks: a.hearKnocks, knocks: make(chan struct{}, 1),
		life: life{vm: c.Name, events: a.cfg.Events, since: time.Now()},
	}
	asks := func(l portlist.Listener) bool { return a.rulesOf(c.Name).AsksProcess(c.Name, l) }
	v.intake = intake.New(asks, v.forwards.Announce)
	v.forwards.SetBridge(c.Bridge, c.DialBridge)
	v.lost = time.AfterFunc(withdrawAfter, v.linkAway)
	return v
}

// linked reports whether there is a link.
func (v *vm) linked() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.link != nil
}

// supervise keeps a link until ctx ends.
func (v *vm) supervise(ctx context.Context) {
	defer v.lost.Stop()
	if v.Endpoint == (endpoint.Endpoint{}) {
		v.dialFailed(ctx, errors.New(v.Problem))
		<-ctx.Done()
		return
	}
	var wait backoff.Backoff
	logged := ""
	for {
		began := time.Now()
		socket, _ := os.Stat(v.socket())
		if v.Endpoint.Scheme == endpoint.SchemeVsock {
			v.hearKnocks()
		}
		announced, err := v.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		if announced {
			wait.LostLink(now, now.Sub(began))
			logged = ""
			v.log.Warn("lost the guest agent", "error", err)
		} else if text := err.Error(); text != logged {
			logged = text
			v.log.Warn("cannot reach the guest agent", "endpoint", v.Endpoint, "error", err)
		}
		// An attempt on a serial port lasts until the guest answers, or for seconds: the
		// next one follows soon.
		v.pause(ctx, max(backoff.Min, wait.Next(now)-now.Sub(began)), socket)
		if ctx.Err() != nil {
			return
		}
	}
}

var errEnded = errors.New("the guest agent ended the link")

// serve dials once and serves the link to its end. It reports whether the guest
// announced anything; the error is never nil, and of no interest once ctx ended.
func (v *vm) serve(ctx context.Context) (announced bool, err error) {
	link, err := v.dial(ctx)
	if err != nil {
		v.dialFailed(ctx, err)
		return false, err
	}
	defer link.Close()
	err = link.Run(ctx, func(a announce.Announcement) {
		if !announced {
			announced = true
			v.connected(link)
		}
		v.announced(a)
	})
	if err == nil {
		err = errEnded
	}
	if announced {
		v.disconnected(link)
		if words := err.Error(); ctx.Err() == nil {
			v.life.isDown(words, false)
		} else {
			v.life.isDown("it is not served any more", false)
		}
	} else {
		v.dialFailed(ctx, err)
	}
	return announced, err
}

func (v *vm) dial(ctx context.Context) (*tunnel.Link, error) {
	key := v.Key
	if v.KeyOf != nil {
		var err error
		// Without its key the guest would not be who it claims to be.
		if key, err = v.KeyOf(); err != nil {
			return nil, withRemedy(err, keys.Hint(v.Name, err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, v.Endpoint.Timeout())
	defer cancel()
	cfg := tunnel.Config{Key: key, AgentVersion: v.cfg.Version, Budget: v.forwards.Budget(), Silence: v.silence, Log: v.log}
	if v.cfg.OpenURL != nil {
		cfg.OpenURL = func(user uint32, url string, answer func(wire.OpenOutcome, string)) {
			v.cfg.OpenURL(v.Name, user, url, answer)
		}
	}
	link, err := tunnel.Dial(ctx, v.Endpoint, cfg)
	if _, ok := errors.AsType[*handshake.AuthError](err); ok {
		err = withRemedy(err, v.keyHint(key))
	}
	if e, ok := errors.AsType[*handshake.IncompatibleError](err); ok && e.GuestIsOlder() {
		err = fmt.Errorf("%w with a newer seed image, or with: rum-host-agent install %s", err, v.Name)
	}
	return link, err
}

// keyHint says what ends a disagreement about the key.
func (v *vm) keyHint(key []byte) string {
	install := fmt.Sprintf("rum-host-agent install %s", v.Name)
	hint := "give the guest this host's key with: " + install + "; or forget it with: rum-host-agent keys forget " + v.Name
	switch {
	case v.KeyOf == nil && key != nil:
		hint = "put the key that ,key= names into the guest's /etc/rum-agent/key, or leave ,key= out and run: " + install
	case key == nil:
		hint = "run this agent as the user who made the key, or give the guest another with: " + install
	}
	if v.Endpoint.Scheme == endpoint.SchemeUnix { // which no installed agent listens on
		hint += "; an agent that was started by hand takes the file of ,key= with --key-file"
	}
	return hint
}

// unheard opens static forwards although the guest has not said anything. While listeners of the process before
// this one wait for it, with the clients in their queues, that has time.
func (v *vm) unheard() {
	if v.cfg.Kept.Await(v.Name, v.announceNothing) {
		return
	}
	v.announceNothing()
}

func (v *vm) announceNothing() {
	v.changing.Lock()
	defer v.changing.Unlock()
	if v.links.Load() == 0 {
		v.forwards.Announce(nil)
	}
}

// dialFailed notes why an attempt came to nothing. A guest that shakes hands
// and never says what listens there is no better than one that does not answer.
func (v *vm) dialFailed(ctx context.Context, err error) {
	v.mu.Lock()
	v.failed = err
	v.mu.Unlock()
	if ctx.Err() == nil {
		_, auth := errors.AsType[*handshake.AuthError](err)
		_, incompatible := errors.AsType[*handshake.IncompatibleError](err)
		v.life.isDown(err.Error(), auth || incompatible)
	}
}

// connected makes use of a link. Only when the guest has said something is it
// known who is at the other end, and that connections are carried.
func (v *vm) connected(link *tunnel.Link) {
	v.changing.Lock()
	defer v.changing.Unlock()
	v.mu.Lock()
	v.lost.Stop()
	v.link, v.failed = link, nil
	last := v.peer
	v.mu.Unlock()
	v.forwards.SetLink(&serve.Link{
		Path:     v.path(),
		Silent:   link.Silent,
		Reverse:  link.SetReverse,
		Tell:     link.TellPorts,
		RelayNow: link.RelayNow,
		HandOver: link.HandOver,
		Open: func(ctx context.Context, t wire.Target, early []byte) (relay.Conn, string, error) {
			s, err := link.Open(ctx, t, early)
			if err != nil {
				return nil, "", err
			}
			return s, v.pathOf(s.Path()), nil
		},
	})
	peer := link.Peer()
	if peer.Auth == handshake.AuthPSK && v.Proved != nil {
		v.Proved()
	}
	if how := builds.Outdated(peer.AgentVersion, v.cfg.Version); how != "" && peer.AgentVersion != last.AgentVersion {
		v.outdatedAgent(how, peer.AgentVersion)
	}
	v.log.Info("linked to the guest agent", "endpoint", v.Endpoint, "auth", peer.Auth, "agent", peer.AgentVersion,
		"hostname", peer.Hostname, "rebooted", last.BootID != "" && last.BootID != peer.BootID)
	v.links.Add(1)
	v.life.isUp(fmt.Sprintf("%v, auth %s, agent %s", v.Endpoint, peer.Auth, peer.AgentVersion))
}

// path is that of connections over a link.
func (v *vm) path() string {
	if v.Endpoint.Sockets() {
		return v.pathOf(stream.PathRaw)
	}
	return stream.PathMux
}

// pathOf is what a stream's path is called where there may be no vsock in it.
func (v *vm) pathOf(path string) string {
	if path == stream.PathRaw && v.Endpoint.Scheme == endpoint.SchemeUnix {
		return endpoint.SchemeUnix
	}
	return path
}

func (v *vm) disconnected(link *tunnel.Link) {
	v.changing.Lock()
	defer v.changing.Unlock()
	v.forwards.SetLink(nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lastSeen, v.peer = link.LastSeen(), link.Peer()
	v.link, v.scanError, v.skipped, v.down = nil, "", "", time.Now()
	v.lost.Reset(withdrawAfter)
}

// announced takes over what listens in the guest. After a scan that failed there
// it is what the last good one saw, and before the first good one it is unknown:
// the forwards stay as they are.
func (v *vm) announced(a announce.Announcement) {
	if a.Generation > 0 {
		v.forwards.Heard(time.Now())
		v.intake.Take(a.Listeners)
		v.cfg.Kept.Settle(v.Name)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if a.ScanError != "" && a.ScanError != v.scanError {
		v.log.Warn("guest cannot tell its ports", "error", a.ScanError)
	}
	v.generation, v.scanError, v.skipped = a.Generation, a.ScanError, skipped(a)
}

// skipped says what a guest announces that cannot be forwarded; "" for nothing.
func skipped(a announce.Announcement) string {
	switch a.Skipped {
	case 0:
		return ""
	case 1:
		return "a listener of the guest cannot be forwarded: " + a.SkipReason
	}
	return fmt.Sprintf("%d listeners of the guest cannot be forwarded, such as %s", a.Skipped, a.SkipReason)
}

// linkAway notes that there has been no link for withdrawAfter.
func (v *vm) linkAway() {
	v.changing.Lock()
	defer v.changing.Unlock()
	v.mu.Lock()
	away := v.link == nil && time.Since(v.down) >= withdrawAfter
	v.mu.Unlock()
	if away {
		v.intake.Forget()
		v.forwards.LinkGone()
	}
}

// status tells about the VM and, as they are given, its forwards.
func (v *vm) status(of forward.Summary) status.VM {
	loopback := v.forwards.Loopback()
	v.mu.Lock()
	defer v.mu.Unlock()
	peer, seen, ahead := v.peer, v.lastSeen, time.Duration(0)
	if v.link != nil {
		v.link.Ask()
		peer, seen, ahead = v.link.Peer(), v.link.LastSeen(), v.link.ClockAhead()
	}
	st := status.VM{
		Name: v.Name, Host: v.Host, State: v.state(),
		Auth: peer.Auth, AgentVersion: peer.AgentVersion, AgentArch: peer.Arch, Generation: v.generation,
		ClockAhead: ahead.Seconds(),
	}
	st.Forwards, st.More = of.Shown, of.More
	st.Warning = v.skipped
	if how := builds.Outdated(peer.AgentVersion, v.cfg.Version); how != "" {
		if st.Warning != "" {
			st.Warning += "; "
		}
		st.Warning += "the guest agent is " + how + " this host agent, " + v.cfg.Version +
			"; " + v.replacing(peer)
	}
	if v.Endpoint != (endpoint.Endpoint{}) {
		st.Endpoint = v.Endpoint.String()
	}
	if !v.Redefined.IsZero() {
		st.RedefinedAt = &v.Redefined
	}
	if !seen.IsZero() {
		st.LastSeen = &seen
	}
	if bridge := v.forwards.Bridge(); bridge.IsValid() {
		st.BridgeIP = bridge.String()
	}
	if loopback.IsValid() {
		st.Loopback = loopback.String()
	}
	st.Remedy, st.Since = v.remedy(v.failed), v.life.at()
	switch {
	case v.failed != nil:
		st.Error = v.failed.Error()
	case v.scanError != "":
		st.Error = "the guest says of its ports: " + v.scanError
	}
	return st
}

func (v *vm) state() string {
	switch {
	case v.link != nil && v.link.Silent():
		return status.Paused
	case v.link != nil:
		return status.Connected
	case v.failed == nil:
		return status.Connecting
	}
	if _, ok := errors.AsType[*handshake.IncompatibleError](v.failed); ok {
		return status.Incompatible
	}
	return status.Down
}
