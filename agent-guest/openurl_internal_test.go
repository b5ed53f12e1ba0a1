package guestagent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// startOpener serves a socket whose host answers when it may.
func startOpener(t *testing.T, may <-chan struct{}) (o *urlOpener, dir string, asked func() int) {
	t.Helper()
	dir = t.TempDir()
	o = newURLOpener(&tunnel.Server{}, slog.New(slog.DiscardHandler))
	var mu sync.Mutex
	n := 0
	o.open = func(ctx context.Context, _ uint32, url string) (wire.OpenURLAnswerMessage, error) {
		mu.Lock()
		n++
		mu.Unlock()
		select {
		case <-may:
		case <-ctx.Done():
		}
		return wire.OpenURLAnswerMessage{Outcome: wire.OpenOpened, Reason: url}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); o.run(ctx, dir) }()
	t.Cleanup(func() { cancel(); <-done })
	for {
		if c, err := net.Dial("unix", filepath.Join(dir, openSocket)); err == nil {
			_ = c.Close() // counts as one of the user's
			break
		}
	}
	return o, dir, func() int { mu.Lock(); defer mu.Unlock(); return n }
}

func TestAUserWhoAsksForPagesAllTheTimeIsRefusedAndNobodyElse(t *testing.T) {
	may := make(chan struct{})
	close(may)
	o, dir, asked := startOpener(t, may)
	refused := 0
	for range 50 {
		a, err := OpenURL(t.Context(), dir, "https://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		if a.Outcome == Refused {
			refused++
		}
	}
	if n := asked(); n > openBurst || refused < 50-openBurst {
		t.Errorf("the host is asked %d times, and %d are refused", n, refused)
	}
	if _, err := o.admit(uint32(os.Getuid())+1, io.NopCloser(nil)); err != nil {
		t.Errorf("another user: %v", err)
	}
	for uid := range uint32(10 * maxOpenUsers) {
		if p, err := o.admit(1000+uid, io.NopCloser(nil)); err == nil {
			o.leave(p)
		}
	}
	if len(o.users) > maxOpenUsers || len(o.openers) > maxOpeners {
		t.Errorf("%d users and %d programs are kept", len(o.users), len(o.openers))
	}
}

// closed is the end of a program's connection.
type closed bool

func (c *closed) Close() error { *c = true; return nil }

func TestUsersWhoseProgramsSayNothingKeepNoOtherFromAsking(t *testing.T) {
	may := make(chan struct{})
	close(may)
	o, dir, _ := startOpener(t, may)
	var conns []*closed
	for i := range 10 * maxOpenersOfUser {
		c := new(closed)
		if _, err := o.admit(uint32(20000+i/maxOpenersOfUser), c); err == nil {
			conns = append(conns, c)
		}
	}
	if a, err := OpenURL(t.Context(), dir, "https://example.com/"); err != nil || a.Outcome != Opened {
		t.Errorf("another user's program: %+v (%v)", a, err)
	}
	o.mu.Lock()
	served := len(o.openers)
	o.mu.Unlock()
	if served > maxOpeners || !*conns[0] {
		t.Errorf("%d programs are served, and the oldest is closed: %v", served, *conns[0])
	}
	// The subordinate IDs of a user are his.
	base := portlist.SubUIDMin
	o = newURLOpener(&tunnel.Server{}, slog.New(slog.DiscardHandler))
	for i := range 2 * maxOpenersOfUser {
		if _, err := o.admit(uint32(base+i), new(closed)); (err == nil) != (i < maxOpenersOfUser) {
			t.Errorf("program %d of a block of users: %v", i, err)
		}
	}
}

func TestAURLThatIsTooLongIsRefusedInTheGuest(t *testing.T) {
	may := make(chan struct{})
	close(may)
	_, dir, asked := startOpener(t, may)
	before := asked()
	if a, err := OpenURL(t.Context(), dir, strings.Repeat("u", wire.MaxURL+1)); err != nil || a.Outcome != Refused {
		t.Errorf("%+v (%v)", a, err)
	}
	c, err := net.Dial("unix", filepath.Join(dir, openSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, strings.Repeat("u", 4*wire.MaxURL))
	if text, _ := io.ReadAll(c); !strings.Contains(string(text), `"refused"`) && len(text) > 0 {
		t.Errorf("a program of its own: %s", text)
	}
	if n := asked(); n > before+1 { // the empty URL of the connection that was a test's own
		t.Errorf("the host is asked %d times", n)
	}
}
