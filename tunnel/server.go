package tunnel

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	// helloTimeout is how long a new connection has to say what it is.
	helloTimeout = 10 * time.Second
	// maxStrangers is how many connections may be at that point at a time; a
	// host needs a handful.
	maxStrangers = 128
)

// Server is the guest's end: it makes links with any number of host agents,
// announces to each what listens, and connects their streams. Fill in the
// fields, then serve any number of listeners and lines at the same time.
type Server struct {
	Config
	// Source returns what listens now, and a channel that is closed when that
	// has changed.
	Source func() (Announcement, <-chan struct{})

	once      sync.Once
	instance  [16]byte
	strangers chan struct{}

	mu    sync.Mutex
	links []*guestLink
}

func (s *Server) init() {
	s.once.Do(func() {
		_, _ = rand.Read(s.instance[:])
		s.strangers = make(chan struct{}, maxStrangers)
	})
}

// Serve accepts connections on a listener until ctx ends, and returns nil then,
// after all of them have ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := checkKey(s.Key); err != nil {
		return err
	}
	s.init()
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept: %w", err)
			}
			s.log().Warn("cannot accept a connection", "err", err)
			select { // out of descriptors, mostly; it passes
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case s.strangers <- struct{}{}:
		default:
			_ = conn.Close()
			s.log().Warn("refused a connection: too many have not said what they are", "limit", maxStrangers)
			continue
		}
		conns.Go(func() { s.serveConn(ctx, conn) })
	}
}

// serveConn finds out whether a connection is to be a link or a stream.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	known := sync.OnceFunc(func() { <-s.strangers })
	defer known()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	_ = conn.SetDeadline(time.Now().Add(helloTimeout))
	frames := frameReader{r: conn}
	kind, body, err := frames.next()
	if err == nil {
		switch kind {
		case frameHello:
			var a agreed
			if a, err = guestHandshake(conn, false, s.Key, s.instance, body); err == nil {
				known()
				_ = conn.SetDeadline(time.Time{})
				s.runLink(ctx, conn, a)
				return
			}
		case frameRaw:
			var l *guestLink
			if l, err = s.linkOf(body); err == nil {
				known()
				_ = conn.SetDeadline(time.Time{})
				stop()
				l.serveRaw(ctx, conn)
				return
			}
		default:
			err = fmt.Errorf("a connection cannot begin with a frame of kind %d", kind)
		}
	}
	if ctx.Err() == nil && !errors.Is(err, io.EOF) {
		s.log().Warn("dropped a connection", "peer", conn.RemoteAddr(), "err", err)
	}
}

// ServeLine serves a line that carries one connection, which is one link after
// the other on a serial port, until ctx ends or the line does. fresh says that
// the line may hold bytes of a dead agent's session, on either side.
func (s *Server) ServeLine(ctx context.Context, line net.Conn, fresh bool) error {
	if err := checkKey(s.Key); err != nil {
		return err
	}
	s.init()
	defer line.Close()
	stop := context.AfterFunc(ctx, func() { _ = line.Close() })
	defer stop()
	if fresh {
		// End the host's session with an agent that is no more.
		if _, err := line.Write(flush()); err != nil {
			return fmt.Errorf("serve %v: %w", line.LocalAddr(), err)
		}
	}
	buffered := newBufferedLine(line)
	a, err := guestHandshake(buffered, true, s.Key, s.instance, nil)
	if err != nil {
		return fmt.Errorf("serve %v: %w", line.LocalAddr(), err)
	}
	s.runLink(ctx, buffered, a)
	return nil
}

// runLink serves a link and logs its beginning and its end.
func (s *Server) runLink(ctx context.Context, conn io.ReadWriteCloser, a agreed) {
	l, err := newGuestLink(s, conn, a)
	if err != nil {
		s.log().Warn("cannot start a session", "err", err)
		return
	}
	s.mu.Lock()
	s.links = append(s.links, l)
	s.mu.Unlock()
	s.log().Info("host connected", "auth", a.auth)
	err = l.run(ctx)
	s.mu.Lock()
	s.links = remove(s.links, l)
	s.mu.Unlock()
	if ctx.Err() == nil {
		s.log().Info("host disconnected", "why", err)
	}
}

func remove(ls []*guestLink, l *guestLink) []*guestLink {
	kept := ls[:0:0]
	for _, other := range ls {
		if other != l {
			kept = append(kept, other)
		}
	}
	return kept
}

var errNoLink = errors.New("raw connection with a token of no link")

// linkOf is the link whose token was presented. Every token is compared in full,
// so that the time taken tells nothing about them.
func (s *Server) linkOf(token []byte) (*guestLink, error) {
	s.mu.Lock()
	links := s.links
	s.mu.Unlock()
	var found *guestLink
	for _, l := range links {
		if subtle.ConstantTimeCompare(l.agreed.token[:], token) == 1 {
			found = l
		}
	}
	if found == nil {
		return nil, errNoLink
	}
	return found, nil
}

// muxServer starts the guest's side of a session.
func (s *Server) muxServer(conn io.ReadWriteCloser) (*yamux.Session, error) {
	return yamux.Server(newFrameConn(conn), muxConfig(s.log()))
}
