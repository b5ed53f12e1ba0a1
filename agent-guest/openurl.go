package guestagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// openSocket is where programs of all users of this machine ask to have a page opened: a URL and the end of what
// they send, for a line of JSON.
const openSocket = "open.sock"

const (
	// openTimeout bounds how long a host has for its answer, and openReadTimeout a program for its URL.
	openTimeout     = 20 * time.Second
	openReadTimeout = 5 * time.Second
	// maxOpeners are served at a time, and maxOpenersOfUser of one user.
	maxOpeners       = 32
	maxOpenersOfUser = 4
	// openEvery is how often a user may ask for long, and openBurst how many times at once.
	openEvery = 10 * time.Second
	openBurst = 4
	// maxOpenUsers are told apart.
	maxOpenUsers = 256
)

// Outcomes of [OpenAnswer].
const (
	Opened      = "opened"  // in the browser of the host's user
	Asked       = "asked"   // he is asked
	Refused     = "refused" // by the host, or here
	NobodyToAsk = "nobody"  // no host that could be asked
)

// OpenAnswer is what became of a URL.
type OpenAnswer struct {
	Outcome string `json:"outcome"`
	Text    string `json:"text"` // the URL's host as it is in ASCII, or why it was refused
}

// OpenURL asks the agent that runs, whose directory is dir, to have a URL opened by its host. The error wraps
// [ErrNotRunning].
func OpenURL(ctx context.Context, dir, url string) (a OpenAnswer, err error) {
	if len(url) > wire.MaxURL {
		return OpenAnswer{Refused, fmt.Sprintf("the URL has %d bytes, at most %d are allowed", len(url), wire.MaxURL)}, nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, openSocket))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return a, ErrNotRunning
	}
	if err != nil {
		return a, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.SetDeadline(time.Now().Add(openTimeout + openReadTimeout))
	// An agent that has no room for it does not read it, and answers all the same.
	_, _ = io.WriteString(conn, url)
	_ = conn.(*net.UnixConn).CloseWrite()
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return a, fmt.Errorf("read the answer of the agent: %w", err)
	}
	return a, nil
}

// urlOpener passes URLs of local programs on to hosts.
type urlOpener struct {
	open func(ctx context.Context, user uint32, url string) (wire.OpenURLAnswerMessage, error)
	log  *slog.Logger

	mu      sync.Mutex
	openers []*opener // the oldest first
	users   map[uint32]*openUser
}

// openUser is a user of this machine who asks, with what asks by his subordinate IDs.
type openUser struct {
	count int
	pace  *rate.Limiter
}

// opener is a program that is served.
type opener struct {
	user   uint32
	conn   io.Closer
	silent bool // its URL has not come yet
}

func newURLOpener(server *tunnel.Server, log *slog.Logger) *urlOpener {
	return &urlOpener{open: server.OpenURL, log: log, users: make(map[uint32]*openUser)}
}

// run serves the socket in dir until ctx ends.
func (o *urlOpener) run(ctx context.Context, dir string) {
	l, err := endpoint.ListenSocket(filepath.Join(dir, openSocket), 0o666)
	if err != nil {
		o.log.Warn("rum-guest-agent open will not work", "error", err)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second): // mostly for want of descriptors
			}
			continue
		}
		var p *opener
		uid, err := userOf(conn)
		if err == nil {
			p, err = o.admit(uid, conn)
		}
		if err != nil {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // it is small, and has room
			_ = json.NewEncoder(conn).Encode(OpenAnswer{Refused, err.Error()})
			_ = conn.Close()
			continue
		}
		wg.Go(func() {
			defer o.leave(p)
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			o.serve(ctx, p, conn)
		})
	}
}

// userOf is who is at the other end.
func userOf(conn net.Conn) (uid uint32, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// admit counts a program of a user, or says why it is not served.
func (o *urlOpener) admit(uid uint32, conn io.Closer) (*opener, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	user := portlist.UserOf(uid)
	u := o.users[user]
	if u == nil {
		for id, other := range o.users {
			if len(o.users) >= maxOpenUsers && other.count == 0 && other.pace.Tokens() >= openBurst {
				delete(o.users, id)
			}
		}
		if len(o.users) >= maxOpenUsers {
			return nil, errors.New("too many users have asked for pages; try again in a minute")
		}
		u = &openUser{pace: rate.NewLimiter(rate.Every(openEvery), openBurst)}
		o.users[user] = u
	}
	switch {
	case u.count >= maxOpenersOfUser:
		return nil, errBusy
	case !u.pace.Allow():
		return nil, fmt.Errorf("too many pages; one every %v can be had", openEvery)
	case len(o.openers) >= maxOpeners && !o.dropSilent(u):
		return nil, errBusy
	}
	p := &opener{user: user, conn: conn, silent: true}
	o.openers = append(o.openers, p)
	u.count++
	return p, nil
}

var errBusy = errors.New("too many pages are asked for at a time")

// dropSilent makes room for a user: of those with more programs than he has with it, the one with the most loses the
// oldest that says nothing. It needs o.mu.
func (o *urlOpener) dropSilent(u *openUser) bool {
	most := u.count + 1
	var oldest *opener
	for _, p := range o.openers {
		if n := o.users[p.user].count; p.silent && n > most {
			most, oldest = n, p
		}
	}
	if oldest == nil {
		return false
	}
	_ = oldest.conn.Close()
	o.remove(oldest)
	return true
}

func (o *urlOpener) leave(p *opener) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remove(p)
}

// remove needs o.mu. One that was dropped is gone already.
func (o *urlOpener) remove(p *opener) {
	if i := slices.Index(o.openers, p); i >= 0 {
		o.openers = slices.Delete(o.openers, i, i+1)
		o.users[p.user].count--
	}
}

// heard notes that a program has said what it wants.
func (o *urlOpener) heard(p *opener) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p.silent = false
}

// serve reads a URL and answers.
func (o *urlOpener) serve(ctx context.Context, p *opener, conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(openReadTimeout))
	url, err := io.ReadAll(io.LimitReader(conn, wire.MaxURL+1))
	if err != nil {
		return
	}
	o.heard(p)
	a := OpenAnswer{Refused, fmt.Sprintf("the URL has more than %d bytes", wire.MaxURL)}
	if len(url) <= wire.MaxURL {
		a = o.ask(ctx, p.user, string(url))
	}
	_ = conn.SetDeadline(time.Now().Add(openReadTimeout))
	// An error here is a program that has gone.
	_ = json.NewEncoder(conn).Encode(a)
}

func (o *urlOpener) ask(ctx context.Context, user uint32, url string) OpenAnswer {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	m, err := o.open(ctx, user, url)
	switch {
	case errors.Is(err, tunnel.ErrNoHost):
		return OpenAnswer{NobodyToAsk, err.Error()}
	case err != nil:
		return OpenAnswer{Refused, err.Error()}
	case m.Outcome == wire.OpenOpened:
		return OpenAnswer{Opened, m.Reason}
	case m.Outcome == wire.OpenAsked:
		return OpenAnswer{Asked, m.Reason}
	}
	return OpenAnswer{Refused, m.Reason}
}
