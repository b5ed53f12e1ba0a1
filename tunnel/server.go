package tunnel

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/handshake"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/reserve"
	"github.com/rum-vm/rum-agent/tunnel/strangers"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// helloTimeout is how long a new connection has to say what it is.
	helloTimeout = 10 * time.Second
	// maxKeyless is how many links a guest agent without a key has at a time: any
	// user of the host may make them. A host agent has one, and for a moment two.
	maxKeyless = 8
	// keylessInterval is how often one more can be made for long, and keylessBurst how
	// many at a time. Each may take its burst of keylessBudget.
	keylessInterval = time.Second / 2
	keylessBurst    = 2 * maxKeyless
	// acceptPause follows an accept that failed, mostly for want of
	// descriptors; it passes.
	acceptPause = 10 * time.Millisecond
)

// Server is the guest's end: it makes links with any number of host agents,
// announces to each what listens, and connects their streams. Fill in the
// fields, then serve any number of listeners and lines at the same time.
type Server struct {
	Config
	// Source returns what listens now, and a channel that is closed when that
	// has changed.
	Source func() (announce.Announcement, <-chan struct{})
	// Own hears of the sockets that listen for hosts, which are not to be
	// announced; nil for nobody to tell.
	Own *portwatch.Own
	// Also tells which of the announced addresses are not this machine's, and are
	// connected to all the same: those of its containers; nil for none.
	Also func(netip.AddrPort) bool
	// Itself connects to what the agent serves itself, for a host that has proved the key; nil for nothing.
	Itself func(wire.Target) (relay.Conn, error)
	// Changed is called when [Server.Hosts] returns something else; nil for nobody to
	// tell. It does not wait.
	Changed func()

	once      sync.Once
	instance  [16]byte
	strangers *strangers.Set
	keyless   *rate.Limiter // of links

	handedOver atomic.Int64 // connections of no link any more

	mu    sync.Mutex
	links []*guestLink
}

func (s *Server) init() {
	s.once.Do(func() {
		_, _ = rand.Read(s.instance[:])
		s.strangers = strangers.New()
		s.keyless = rate.NewLimiter(rate.Every(keylessInterval), keylessBurst)
	})
}

// Serve accepts connections on a listener until ctx ends, and returns nil then,
// after all of them have ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := handshake.CheckKey(s.Key); err != nil {
		return err
	}
	s.init()
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	accept := reserve.NewListener(l)
	defer accept.Close()
	for {
		if s.strangers.Wait(ctx.Done()) != nil {
			return nil
		}
		conn, err := accept.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept: %w", err)
			}
			s.log().Warn("cannot accept a connection", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		if err := reserve.CheckConn(conn); err != nil {
			_ = conn.Close()
			s.log().Warn("refused a connection", "err", err)
			continue
		}
		st, err := s.strangers.Admit(ctx, conn)
		if err != nil {
			_ = conn.Close()
			return nil
		}
		conns.Go(func() { s.serveConn(accepting{ctx, &conns}, conn, st) })
	}
}

// serveConn finds out whether a connection is to be a link or a stream.
func (s *Server) serveConn(in accepting, conn net.Conn, st *strangers.Stranger) {
	ctx := in.ctx
	known := func() { s.strangers.Known(st) }
	defer known()
	ours := true
	defer func() {
		if ours {
			_ = conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	_ = conn.SetDeadline(time.Now().Add(helloTimeout))
	frames := wire.FrameReader{R: conn}
	kind, body, err := frames.Next()
	if err == nil {
		switch kind {
		case wire.FrameHello:
			done := func() { known(); _ = conn.SetDeadline(time.Time{}) }
			if err = s.serveLink(in, conn, false, body, done); err == nil {
				return
			}
		case wire.FrameRaw, wire.FrameEnds:
			var l *guestLink
			if l, err = s.linkOf(body); err == nil {
				known()
				_ = conn.SetDeadline(time.Time{})
				stop()
				ours = false // the link's from now on
				if kind == wire.FrameEnds {
					l.takeEnds(conn)
				} else {
					l.serveRaw(ctx, conn)
				}
				return
			}
		default:
			err = fmt.Errorf("a connection cannot begin with a frame of kind %d", kind)
		}
	}
	s.strangers.Charge()
	if s.strangers.WasEvicted(st) {
		err = strangers.ErrTooMany
	}
	if ctx.Err() == nil && !errors.Is(err, io.EOF) {
		s.log().Warn("dropped a connection", "peer", conn.RemoteAddr(), "err", err)
	}
}

// ServeLine serves a line that carries one connection, which is one link after
// the other on a serial port, until ctx ends or the line does. fresh says that
// the line may hold bytes of a dead agent's session, on either side.
func (s *Server) ServeLine(ctx context.Context, line net.Conn, fresh bool) error {
	if err := handshake.CheckKey(s.Key); err != nil {
		return err
	}
	s.init()
	defer line.Close()
	stop := context.AfterFunc(ctx, func() { _ = line.Close() })
	defer stop()
	if fresh {
		// End the host's session with an agent that is no more.
		if _, err := line.Write(handshake.Flush()); err != nil {
			return fmt.Errorf("serve %v: %w", line.LocalAddr(), err)
		}
	}
	if err := s.serveLink(accepting{ctx: ctx}, handshake.NewLine(line), true, nil, func() {}); err != nil {
		return fmt.Errorf("serve %v: %w", line.LocalAddr(), err)
	}
	return nil
}

// serveLink shakes hands and serves the link to its end. The error is the
// handshake's; done is called when it went well.
func (s *Server) serveLink(in accepting, conn io.ReadWriteCloser, resync bool, hello []byte, done func()) error {
	var l *guestLink
	defer func() {
		if l != nil {
			s.forget(l)
		}
	}()
	err := handshake.Guest(conn, resync, s.Key, s.instance, hello, func(a handshake.Agreed) error {
		if s.Key == nil && !resync {
			if !s.keyless.Allow() {
				return errTooManyAtOnce
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.Key == nil && len(s.links) >= maxKeyless {
			return errTooManyLinks
		}
		l = newGuestLink(s, in, a, !resync)
		s.links = append(s.links, l)
		return nil
	})
	if err != nil {
		return err
	}
	done()
	s.log().Info("host connected", "auth", l.agreed.Auth)
	s.hostsChanged()
	err = l.run(in.ctx, conn)
	if in.ctx.Err() == nil {
		s.log().Info("host disconnected", "why", err)
	}
	return nil
}

var errTooManyLinks = fmt.Errorf("the guest agent has %d links, which is the most without a key", maxKeyless)

var errTooManyAtOnce = fmt.Errorf("without a key %d links a second are the most", time.Second/keylessInterval)

func (s *Server) forget(l *guestLink) {
	s.mu.Lock()
	// linkOf may be reading the old slice.
	s.links = slices.DeleteFunc(slices.Clone(s.links), func(o *guestLink) bool { return o == l })
	s.mu.Unlock()
	s.hostsChanged()
}

var errNoLink = errors.New("raw connection with a token of no link")

// allLinks are not to be changed.
func (s *Server) allLinks() []*guestLink {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links
}

// linkOf is the link whose token was presented. Every token is compared in full,
// so that the time taken tells nothing about them.
func (s *Server) linkOf(token []byte) (*guestLink, error) {
	links := s.allLinks()
	var found *guestLink
	for _, l := range links {
		if subtle.ConstantTimeCompare(l.agreed.Token[:], token) == 1 {
			found = l
		}
	}
	if found == nil {
		return nil, errNoLink
	}
	return found, nil
}
