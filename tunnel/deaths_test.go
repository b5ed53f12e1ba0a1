package tunnel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/relay"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// TestAThousandLinkDeathsUnderLoadLeaveNothingBehind has links die with transfers under way, of all that a link can
// die of in one process, and counts what both ends have left when the last of them is dead and the agents are not.
func TestAThousandLinkDeathsUnderLoadLeaveNothingBehind(t *testing.T) {
	const deaths, atOnce = 1000, 4
	target := service(t, echo)
	var dying [atOnce]*mortal
	for i := range dying {
		dying[i] = newMortal(t, target)
	}
	before := counted(t)
	var wg sync.WaitGroup
	for _, m := range dying {
		wg.Go(func() {
			for n := range deaths / atOnce {
				m.liveAndDie(t, causes[n%len(causes)])
			}
		})
	}
	wg.Wait()
	kept := max(2, runtime.NumCPU()) // a pipe for each loop, of which there is one for two processors
	var now left
	defer func() { t.Logf("before %+v, after %+v", before, now) }()
	eventually(t, "no more to be left than there was before", func() bool {
		runtime.GC() // pipes that are kept for others go with it
		now = counted(t)
		return now.sockets <= before.sockets && now.pipes <= before.pipes+kept && now.goroutines <= before.goroutines
	})
}

// left is what dead links may leave.
type left struct{ sockets, pipes, goroutines int }

func counted(t *testing.T) left {
	t.Helper()
	return left{openFiles(t, "socket:"), openFiles(t, "pipe:"), runtime.NumGoroutine()}
}

// causes of death.
var causes = []func(t *testing.T, m *mortal, l *tunnel.Link, hostEnds func()){
	func(_ *testing.T, _ *mortal, _ *tunnel.Link, hostEnds func()) { hostEnds() },
	func(_ *testing.T, _ *mortal, l *tunnel.Link, _ func()) { _ = l.Close() },
	func(_ *testing.T, m *mortal, _ *tunnel.Link, _ func()) { m.guest.cut() },
	func(t *testing.T, m *mortal, _ *tunnel.Link, _ func()) { m.stop(); m.serve(t) }, // the guest agent ends, and the next begins
}

// mortal is a pair of agents with one link after the other, and a port that is forwarded over the one there is.
type mortal struct {
	guest  *cuttable
	stop   func() // of the guest agent
	at     endpoint.Endpoint
	port   string
	link   atomic.Pointer[tunnel.Link]
	relays sync.WaitGroup
}

func newMortal(t *testing.T, target wire.Target) *mortal {
	t.Helper()
	m := &mortal{at: endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: filepath.Join(t.TempDir(), "agent.sock")}}
	m.serve(t)
	t.Cleanup(func() { m.stop() })
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	m.port = ln.Addr().String()
	a, err := relay.NewAcceptor(ln)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	n := new(relay.Counters)
	ended := func(error) { m.relays.Done() }
	err = a.Serve(func(c *relay.Client) {
		l := m.link.Load()
		m.relays.Add(1)
		if l.RelayNow(c, target, nil, n, ended) {
			return
		}
		go func() {
			s, err := l.Open(context.Background(), target, nil)
			if err != nil {
				c.Abort()
				ended(nil)
				return
			}
			relay.Relay(c.Conn(), s, n, ended)
		}()
	}, func(err error) { t.Errorf("accept: %v", err) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// serve starts the guest agent.
func (m *mortal) serve(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", m.at.Path)
	if err != nil {
		t.Error(err)
		return
	}
	m.guest = &cuttable{Listener: l}
	server := &tunnel.Server{Config: keyed, Source: (&source{changed: make(chan struct{})}).get}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, m.guest) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// liveAndDie makes a link, has clients move what they can over it, and ends it.
func (m *mortal) liveAndDie(t *testing.T, die func(*testing.T, *mortal, *tunnel.Link, func())) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m.guest.forget()
	l, err := tunnel.Dial(ctx, m.at, keyed)
	if err != nil {
		t.Error(err)
		return
	}
	m.link.Store(l)
	running, hostEnds := context.WithCancel(context.Background())
	defer hostEnds()
	var over, flowing sync.WaitGroup
	over.Go(func() { _ = l.Run(running, func(announce.Announcement) {}) })
	const clients = 4
	flowing.Add(clients)
	for range clients {
		over.Go(func() { m.transfer(t, sync.OnceFunc(flowing.Done)) })
	}
	flowing.Wait()
	die(t, m, l, hostEnds)
	over.Wait()
	m.relays.Wait()
}

// transfer is a client that sends and receives until the link is dead.
func (m *mortal) transfer(t *testing.T, flowing func()) {
	defer flowing()
	c, err := net.Dial("tcp", m.port)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 16<<10)
	for err == nil {
		if _, err = c.Write(b); err == nil {
			_, err = io.ReadFull(c, b)
		}
		if err == nil {
			flowing()
		}
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a transfer over a link that died ended with %v, want a reset", err)
	}
}

// cuttable is a listener whose connections are there to be cut.
type cuttable struct {
	net.Listener
	mu  sync.Mutex
	all []net.Conn // since forget, that of the link among them
}

func (c *cuttable) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.all = append(c.all, conn)
	}
	return conn, err
}

func (c *cuttable) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = nil
}

func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.all {
		_ = conn.Close()
	}
}

// openFiles counts the descriptors of this process that are of a kind.
func openFiles(t *testing.T, kind string) (n int) {
	t.Helper()
	const all = "/proc/self/fd"
	fds, err := os.ReadDir(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(all, fd.Name())); err == nil && strings.HasPrefix(to, kind) {
			n++
		}
	}
	return n
}
