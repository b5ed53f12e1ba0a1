package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/clock"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/heartbeat"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/urls"
	"github.com/rum-vm/rum-agent/tunnel/wire"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// Config is what both ends need to know to make a link.
type Config struct {
	// Key is the [keyfile.Size] bytes that both ends prove; nil for no key.
	Key []byte
	// AgentVersion is told to the other end, and Packager, the name of the package manager that this agent is from; "" for none.
	AgentVersion, Packager string
	// Budget is what the host lets messages of a guest cost that serve no client; nil
	// for one of each link's own. A server has its own.
	Budget *budget.Budget
	// Silence is told when a guest gives no sign of life any more, and when it does again; nil
	// for nobody. It takes a moment, and asks nothing of the link.
	Silence func(silent bool)
	// OpenURL is given each URL that the guest agent asks its host to open, as it came and over a link with a
	// key only, and calls answer once, whenever that is. It takes a moment. A host without one opens none.
	OpenURL func(user uint32, url string, answer func(o wire.OpenOutcome, reason string))
	// Log gets one line for each event; nil for none.
	Log *slog.Logger
}

func (c *Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// Peer is what the other end said of itself.
type Peer struct {
	AgentVersion, Hostname string
	// BootID changes when the guest boots, Instance when its agent starts.
	BootID, Instance string
	// Arch is the GOARCH of the agent, and Packager what [Config] has; "" where it does not say.
	Arch, Packager string
	// Auth is "psk" when both ends proved the same key, else "none".
	Auth string
	// ServesItself is whether the agent knows targets of [wire.NetworkAgent].
	ServesItself bool
}

// announceInterval is the time between two announcements in the long run, after
// announceBurst without one; what comes faster is joined, so that a guest cannot make
// the host open and close listeners faster than this.
const (
	announceInterval = 20 * time.Millisecond
	announceBurst    = 10
)

// linkLimits are for what waits on a link for those who read it.
var linkLimits = mux.Limits{Waiting: 16 << 20, Held: 48 << 20, Thin: budget.Limits{Share: 0.04, Burst: time.Second / 8}}

// Link is the host's end of a live, authenticated connection to a guest agent.
type Link struct {
	endpoint endpoint.Endpoint
	cfg      Config
	agreed   handshake.Agreed
	pings    heartbeat.Pings
	silent   atomic.Bool       // as last logged
	idle     atomic.Bool       // it carries nothing, and heartbeats are rare
	busy     chan struct{}     // has a token when a connection begins on an idle link
	orders   *handshake.Signer // nil without a key
	urls     *handshake.Verifier
	work     *budget.Budget // for what serves no client
	session  *mux.Session
	control  *control
	ends     stream.Ends
	endsConn endsTeller // nil where there is one connection only
	nextID   atomic.Uint64
	pool     *stream.Pool
	reverse  reverses

	mu   sync.Mutex
	peer Peer
}

// endsTeller is the connection on which the ends of streams are told.
type endsTeller interface {
	Tell(wire.EndMessage)
	Wait() error
	Close()
}

// Dial connects to a guest agent and shakes hands with it. An agent of another
// protocol is a [*handshake.IncompatibleError], a key that was not proved a
// [*handshake.AuthError].
// The link does nothing before Run is called.
func Dial(ctx context.Context, e endpoint.Endpoint, cfg Config) (*Link, error) {
	if err := handshake.CheckKey(cfg.Key); err != nil {
		return nil, err
	}
	conn, a, err := connect(ctx, e, cfg)
	if err != nil {
		return nil, err
	}
	l, err := newLink(e, cfg, conn, a)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%s: %w", e, err)
	}
	if e.Many() {
		if err := l.dialEnds(ctx); err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("%s: connection for the ends of streams: %w", e, err)
		}
	}
	return l, nil
}

// dialEnds makes the connection on which the ends of streams are told.
func (l *Link) dialEnds(ctx context.Context) error {
	conn, err := l.dialRaw(ctx)
	if err != nil {
		return err
	}
	if _, err := conn.Write(l.frame(wire.FrameEnds)); err != nil {
		_ = conn.Close()
		return err
	}
	if !l.endpoint.Sockets() {
		l.endsConn = stream.NewEndsStream(conn, l.ends.Deliver, budget.New(budget.Ends))
	} else {
		c, err := stream.NewEndsConn(conn, l.ends.Deliver, budget.New(budget.Ends))
		if err != nil {
			return err
		}
		l.endsConn = c
	}
	l.ends.Tell = l.endsConn.Tell
	return nil
}

// newLink starts the session on a connection after its handshake.
func newLink(e endpoint.Endpoint, cfg Config, conn io.ReadWriteCloser, a handshake.Agreed) (*Link, error) {
	l := &Link{
		endpoint: e,
		cfg:      cfg,
		agreed:   a,
		peer:     Peer{Auth: a.Auth, Instance: fmt.Sprintf("%x", a.Instance), ServesItself: a.ServesItself()},
	}
	if cfg.Budget == nil {
		cfg.Budget = budget.New(budget.Link)
	}
	l.work = cfg.Budget
	if a.OrderKey != nil {
		l.orders, l.urls = &handshake.Signer{Key: *a.OrderKey}, &handshake.Verifier{Key: *a.GuestOrderKey}
	}
	session, err := mux.New(conn, true, linkLimits, l.work, cfg.log(), l.reverse.admit)
	if err != nil {
		return nil, err
	}
	first, err := session.Open()
	if err != nil {
		_ = session.Close()
		return nil, fmt.Errorf("control stream: %w", err)
	}
	l.session, l.control = session, newControl(first, session.CloseChan(), l.work)
	l.ends.Tell = func(m wire.EndMessage) { l.control.send(&m) }
	l.ends.Heard = l.control.lastHeard
	l.ends.KeepEarly = func(id uint64) bool { return id&wire.GuestOpened != 0 }
	l.pings.Beat(clock.Now(), pingInterval)
	l.busy = make(chan struct{}, 1)
	l.ends.Began = l.becomeBusy
	l.reverse.streams = make(chan struct{}, maxReverseStreams)
	l.pool = stream.NewPool(l.dialRaw, func() []byte { return l.frame(wire.FrameRaw) })
	l.ends.Reuse = l.pool.Put
	l.control.send(hello(cfg))
	return l, nil
}

// connect makes a connection and shakes hands on it; ctx bounds both.
func connect(ctx context.Context, e endpoint.Endpoint, cfg Config) (io.ReadWriteCloser, handshake.Agreed, error) {
	conn, err := endpoint.Dial(ctx, e, func(line string) { cfg.log().Info("command says", "line", line) })
	if err != nil {
		return nil, handshake.Agreed{}, err
	}
	var line io.ReadWriteCloser = conn
	if !e.Many() {
		line = handshake.NewLine(conn)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	a, err := handshake.Host(line, !e.Many(), cfg.Key)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		if c, ok := conn.(*endpoint.Command); ok && !saidByPeer(err) {
			err = c.Explain(err)
		}
		_ = conn.Close()
		if _, ok := errors.AsType[*endpoint.EndedError](err); ok {
			return nil, handshake.Agreed{}, fmt.Errorf("%s: %w", e.Scheme, err) // the command itself would hide it
		}
		return nil, handshake.Agreed{}, fmt.Errorf("shake hands with %s: %w", e, err)
	}
	return line, a, nil
}

// saidByPeer tells whether a handshake failed by what the peer said in it.
func saidByPeer(err error) bool {
	_, auth := errors.AsType[*handshake.AuthError](err)
	_, incompatible := errors.AsType[*handshake.IncompatibleError](err)
	return auth || incompatible
}

func hello(c Config) *wire.HelloMessage {
	h := &wire.HelloMessage{AgentVersion: c.AgentVersion, Arch: runtime.GOARCH, BootID: bootID(), Packager: c.Packager}
	h.Hostname, _ = os.Hostname()
	return h
}

// bootID is the number that the running kernel gave itself, "" if it cannot be read.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// Run serves the link until it ends and returns why; a cancelled ctx ends it
// with nil. For every change in the guest it calls on, from one goroutine, and
// not before the first snapshot has come.
func (l *Link) Run(ctx context.Context, on func(announce.Announcement)) error {
	latest := make(chan announce.Announcement, 1)
	var a announce.Copy
	greeted := false
	handle := func(m wire.Message) (useful bool, err error) {
		switch m := m.(type) {
		case *wire.HelloMessage:
			if greeted {
				return false, errors.New("guest: a second hello")
			}
			greeted = true
			a.SameKernel = m.BootID != "" && m.BootID == bootID()
			l.mu.Lock()
			l.peer.AgentVersion, l.peer.Hostname, l.peer.BootID = m.AgentVersion, m.Hostname, m.BootID
			l.peer.Arch, l.peer.Packager = m.Arch, m.Packager
			l.mu.Unlock()
		case *wire.EndMessage:
			useful = l.ends.Deliver(*m)
		case *wire.PongMessage:
			if err := l.pings.Answered(m.Seq, m.Now, clock.Now(), time.Now()); err != nil {
				return false, fmt.Errorf("guest: %w", err)
			}
		case *wire.ReverseStateMessage:
			l.reverseState(m)
		case *wire.OpenURLMessage:
			urls.Take(m, l.urls, l.cfg.OpenURL, l.control.send)
		default:
			changed, err := a.Apply(m)
			if err != nil {
				return false, fmt.Errorf("guest: %w", err)
			}
			if changed {
				replace(latest, a.Announcement())
			}
		}
		return useful, nil
	}

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.control.read(handle) })
	g.Go(func() error { return l.control.write(gctx) })
	g.Go(func() error { return deliver(gctx, latest, on) })
	g.Go(func() error { return l.heartbeat(gctx) })
	g.Go(func() error { return l.acceptStreams(gctx) })
	if l.endpoint.Many() {
		g.Go(func() error { return l.pool.Run(gctx) })
		g.Go(l.endsConn.Wait)
	}
	g.Go(func() error {
		<-gctx.Done()
		_ = l.session.Close()
		l.closeEnds()
		return nil
	})
	err := sessionError(l.session, g.Wait())
	l.shut(err)
	l.reverse.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("link to %s: %w", l.endpoint, err)
}

// sessionError is why a session ended. The streams of an ended session only say
// EOF; the session itself knows more.
func sessionError(s *mux.Session, err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, yamux.ErrSessionShutdown) {
		return err
	}
	_ = s.Close()
	if _, serr := s.AcceptStream(); serr != nil && !errors.Is(serr, yamux.ErrSessionShutdown) {
		err = serr
	}
	if errors.Is(err, io.EOF) || errors.Is(err, yamux.ErrSessionShutdown) || errors.Is(err, syscall.ECONNRESET) {
		return stream.ErrClosedByPeer
	}
	return err
}

// shut ends everything the link carries.
func (l *Link) shut(why error) {
	_ = l.session.Close()
	l.closeEnds()
	l.pool.Close()
	l.ends.FailAll(fmt.Errorf("link lost (%v): %w", why, syscall.ECONNRESET))
}

func (l *Link) closeEnds() {
	if l.endsConn != nil {
		l.endsConn.Close()
	}
}

// Close ends the link and resets what it carries. Only a link that is not being
// run needs it.
func (l *Link) Close() error {
	l.shut(net.ErrClosed)
	return nil
}

// Peer is what the guest agent said of itself. Versions and names are empty
// until its first message has come.
func (l *Link) Peer() Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer
}

// replace leaves v as the only thing in ch.
func replace(ch chan announce.Announcement, v announce.Announcement) {
	for {
		select {
		case ch <- v:
			return
		default:
		}
		select {
		case <-ch:
		default:
		}
	}
}

func deliver(ctx context.Context, latest <-chan announce.Announcement, on func(announce.Announcement)) error {
	pace := rate.NewLimiter(rate.Every(announceInterval), announceBurst)
	for pace.Wait(ctx) == nil {
		select {
		case <-ctx.Done():
		case a := <-latest:
			on(a)
		}
	}
	return nil
}
