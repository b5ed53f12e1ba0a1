package tunnel

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/dial"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/mux"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"github.com/rum-vm/rum-agent/tunnel/urls"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// guestLink is the guest's end of a link.
type guestLink struct {
	server  *Server
	in      accepting
	agreed  handshake.Agreed
	session *mux.Session
	control *control
	orders  *handshake.Verifier // nil without a key
	urls    urls.Guest
	work    *budget.Budget // for messages that serve no client
	ends    stream.Ends
	refused budget.Refusals
	streams sync.WaitGroup
	serve   func(context.Context, net.Conn, wire.OpenRequest) // serveStream, but in tests
	started chan struct{}                                     // closed once control is there, or will never be

	many     bool // the endpoint allows many connections
	endsCame chan net.Conn
	endsConn *stream.EndsConn // nil where there is one connection only

	dials           chan struct{}  // bounds those that wait
	datagrams       *budget.Budget // for those that serve nobody
	datagramStreams atomic.Int32
	reverse         reverseGuest

	mu       sync.Mutex
	waiting  map[*waitingConn]bool
	reading  int // connections that a request is read from
	hostname string
	ports    []wire.PortState // as the host told last
	ended    bool
}

func newGuestLink(s *Server, in accepting, a handshake.Agreed, many bool) *guestLink {
	l := &guestLink{
		server: s, in: in, agreed: a, many: many, started: make(chan struct{}),
		endsCame: make(chan net.Conn, 1), waiting: make(map[*waitingConn]bool),
		dials: make(chan struct{}, dial.MaxPending),
	}
	l.work, l.refused = budget.New(budget.Link), budget.NewRefusals(budget.Link, maxHeld)
	if a.OrderKey != nil {
		l.orders, l.urls.Orders = &handshake.Verifier{Key: *a.OrderKey}, &handshake.Signer{Key: *a.GuestOrderKey}
	}
	if l.untrusted() {
		l.work, l.refused = budget.New(keylessBudget), budget.NewRefusals(keylessBudget, maxHeldKeyless)
	}
	l.datagrams = budget.New(l.limitsOf(budget.Datagrams))
	l.ends.KeepEarly = func(id uint64) bool { return id&wire.GuestOpened == 0 }
	l.reverse = reverseGuest{link: l, listeners: make(map[uint64]*reverseListener), clients: make(chan struct{}, maxReverseStreams)}
	l.serve = l.serveStream
	return l
}

// run serves the link on conn until it ends, and returns why.
func (l *guestLink) run(ctx context.Context, conn io.ReadWriteCloser) error {
	err := l.start(ctx, conn)
	if err != nil {
		l.mu.Lock()
		l.ended = true // before raw connections that wait for the start go on
		l.mu.Unlock()
	}
	close(l.started)
	if err == nil {
		err = sessionError(l.session, l.serveSession(ctx))
	}
	l.shut(err)
	return err
}

// start begins the session and waits for the host's first stream, as long as for
// a hello.
func (l *guestLink) start(ctx context.Context, conn io.ReadWriteCloser) (err error) {
	limits := linkLimits
	if l.orders == nil {
		limits = keylessLimits
		limits.Thin = l.limitsOf(linkLimits.Thin)
	}
	if l.session, err = mux.New(conn, false, limits, l.work, l.server.log(), l.admitHost); err != nil {
		_ = conn.Close()
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	first, err := l.session.Accept(ctx)
	if err != nil {
		_ = l.session.Close()
		return fmt.Errorf("no control stream: %w", err)
	}
	l.control = newControl(first, l.session.CloseChan(), l.work)
	l.ends.Tell = func(m wire.EndMessage) { l.control.send(&m) }
	l.ends.Heard = l.control.lastHeard
	if l.many {
		select {
		case conn := <-l.endsCame:
			l.endsConn, err = stream.NewEndsConn(conn, l.ends.Deliver, budget.New(l.limitsOf(budget.Ends)))
		case <-ctx.Done():
			err = ctx.Err()
		case <-l.session.CloseChan():
			err = stream.ErrClosedByPeer
		}
		if err != nil {
			_ = l.session.Close()
			return fmt.Errorf("no connection for the ends of streams: %w", err)
		}
		l.ends.Tell = l.endsConn.Tell
	}
	l.control.send(hello(l.server.Config))
	return nil
}

// takeEnds is given the connection for the ends of streams, of which there is
// one.
func (l *guestLink) takeEnds(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		select {
		case l.endsCame <- conn:
			return
		default:
		}
	}
	_ = conn.Close()
}

func (l *guestLink) serveSession(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	l.reverse.ctx = ctx
	g.Go(func() error { return l.control.read(l.handle) })
	g.Go(func() error { return l.control.write(ctx) })
	g.Go(func() error { return l.announce(ctx) })
	g.Go(func() error { return l.acceptStreams(ctx) })
	if l.endsConn != nil {
		g.Go(l.endsConn.Wait)
	}
	g.Go(func() error {
		<-ctx.Done()
		_ = l.session.Close()
		if l.endsConn != nil {
			l.endsConn.Close()
		}
		return nil
	})
	return g.Wait()
}

func (l *guestLink) handle(m wire.Message) (useful bool, err error) {
	switch m := m.(type) {
	case *wire.PingMessage:
		l.control.send(&wire.PongMessage{Seq: m.Seq, Now: time.Now().UnixNano()})
	case *wire.EndMessage:
		useful = l.ends.Deliver(*m)
	case *wire.ReverseMessage:
		l.reverse.apply(m)
	case *wire.HelloMessage:
		l.server.log().Debug("host agent", "version", m.AgentVersion, "hostname", m.Hostname)
		l.mu.Lock()
		l.hostname = m.Hostname
		l.mu.Unlock()
		l.server.hostsChanged()
	case *wire.PortStatesMessage:
		l.mu.Lock()
		l.ports = m.Ports
		l.mu.Unlock()
		l.server.hostsChanged()
	case *wire.OpenURLAnswerMessage:
		l.urls.Answered(*m)
	default:
		return false, fmt.Errorf("host sent a control message that only guests send: %T", m)
	}
	return useful, nil
}

// announce sends what listens, first all of it, then what changed since. A host
// that is slow to read gets fewer and larger deltas. Before the first scan has
// succeeded there is nothing to send but the error.
func (l *guestLink) announce(ctx context.Context) error {
	var sent announce.Announcement
	for {
		now, changed := l.server.Source()
		now = announce.Limit(now, sent.Listeners)
		if l.orders == nil {
			now.Listeners = withoutPrograms(now.Listeners)
		}
		switch {
		case now.Generation == sent.Generation:
		case sent.Generation == 0:
			l.control.send(&wire.SnapshotMessage{Generation: now.Generation, Listeners: now.Listeners})
		default:
			added, removed := portlist.Diff(sent.Listeners, now.Listeners)
			l.control.send(&wire.DeltaMessage{From: sent.Generation, To: now.Generation, Removed: removed, Added: added})
		}
		if now.ScanError != sent.ScanError {
			l.control.send(&wire.ScanErrorMessage{Text: now.ScanError})
		}
		sent = now
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// withoutPrograms is what a host may know that is any user there: command lines may hold
// passwords.
func withoutPrograms(all []portlist.Listener) []portlist.Listener {
	all = slices.Clone(all)
	for i := range all {
		all[i].Program = portlist.Program{}
	}
	return all
}

// acceptStreams takes the yamux streams that the host opens. It never waits for
// one of them: a full backlog would stall the session.
func (l *guestLink) acceptStreams(ctx context.Context) error {
	for {
		conn, err := l.session.Accept(ctx)
		if err != nil {
			return err
		}
		l.streams.Go(func() { l.serveOpen(ctx, conn, func(int) {}) })
	}
}

// serveOpen reads the request that opens a stream and serves the stream. It counts itself
// while it reads.
func (l *guestLink) serveOpen(ctx context.Context, conn net.Conn, reading func(n int)) {
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	reading(1)
	open, err := wire.ReadOpen(conn)
	reading(-1)
	if err != nil {
		l.dropped(err)
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	l.serve(ctx, conn, open)
}

// dropped notes a stream whose opening was no request.
func (l *guestLink) dropped(err error) {
	l.server.log().Warn("dropped a stream", "err", err)
	l.payRefusal()
}

// payRefusal waits until a stream that served no client is paid for, and reports
// whether its host is to have an answer. Where too many wait already, a host with a key
// has its answer at once. One without is any user there, who pays with the connections
// that he may make.
func (l *guestLink) payRefusal() (answer bool) {
	if l.refused.Pay(l.session.CloseChan()) {
		return true
	}
	if !l.untrusted() {
		return true
	}
	l.server.strangers.Charge()
	return false
}

// newStream makes the stream that a request opens. Nothing carries it yet.
func (l *guestLink) newStream(ctx context.Context, open wire.OpenRequest) (*stream.Stream, error) {
	s := stream.NewAnswered(open.ID, &l.ends)
	if id := open.ID; open.Reuse { // the stream holds no more of the request
		s.Reuse(func(c stream.Carrier) { l.again(ctx, id, c.Descriptor()) })
	}
	return s, l.ends.Add(s)
}

// serveStream connects a stream to its target and relays until both have ended.
func (l *guestLink) serveStream(ctx context.Context, conn net.Conn, open wire.OpenRequest) {
	s, err := l.newStream(ctx, open)
	if err != nil {
		l.payRefusal()
		_ = conn.Close()
		return
	}
	if err := s.Attach(conn); err != nil {
		return
	}
	if open.Target.Network == wire.NetworkUDP {
		l.serveUDP(ctx, conn, s)
		return
	}
	var target relay.Conn
	switch {
	case l.full():
		err = errTooManyKeyless
	case open.HandOver && s.Path() == stream.PathMux:
		err = errOneConnection
	default:
		target, err = l.dial(ctx, s, open)
	}
	if err == nil || l.payRefusal() {
		status, reason := answerTo(err)
		// A client that has gone does not take it, and what it sent before still is to
		// arrive.
		_, _ = conn.Write(wire.AppendAnswer(nil, status, reason))
	}
	if err != nil {
		s.Die(net.ErrClosed)
		return
	}
	if open.HandOver {
		l.handOver(s, target, open.Target)
		return
	}
	l.streams.Add(1)
	relay.Relay(target, s, new(relay.Counters), l.streamEnded(open.Target))
}

// dial connects to what a stream is for, as long as that is wanted.
func (l *guestLink) dial(ctx context.Context, s *stream.Stream, open wire.OpenRequest) (relay.Conn, error) {
	if kind := handshake.OrderTo(open.Target); kind != "" {
		if err := l.orders.Verify(kind, open.Order(), open.Proof); err != nil {
			return nil, err
		}
	}
	if open.Target.Network == wire.NetworkAgent {
		return l.server.itself(open.Target)
	}
	select {
	case l.dials <- struct{}{}:
		defer func() { <-l.dials }()
	default:
		return nil, dial.ErrTooMany
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.WhenDead(cancel)
	defer s.WhenDead(nil)
	target, err := dial.To(ctx, open.Target, l.server.Also)
	if err != nil {
		return nil, err
	}
	if err := reserve.CheckConn(target); err != nil {
		target.Abort()
		return nil, err
	}
	return target, nil
}

// streamEnded is called at the end of a stream that was relayed.
func (l *guestLink) streamEnded(t wire.Target) func(error) {
	return func(err error) {
		defer l.streams.Done()
		if err != nil {
			l.server.log().Debug("connection ended", "target", t, "err", err)
		}
	}
}

// shut ends everything that the link carries and waits for it.
func (l *guestLink) shut(why error) {
	l.mu.Lock()
	l.ended = true
	for w := range l.waiting {
		delete(l.waiting, w)
		w.raw.Close()
	}
	select {
	case conn := <-l.endsCame:
		_ = conn.Close()
	default:
	}
	l.mu.Unlock()
	l.ends.FailAll(fmt.Errorf("link lost (%v): %w", why, syscall.ECONNRESET))
	l.streams.Wait()
}
