//go:build e2e

package browser

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/announce"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// patience bounds every wait.
const patience = 60 * time.Second

// guest is a guest agent, and what listens beside it.
type guest struct {
	t    *testing.T
	name string
	ip   netip.Addr
	path string
	key  []byte // nil for none

	server *tunnel.Server

	mu      sync.Mutex
	now     announce.Announcement
	changed chan struct{}
	stop    func()
}

// newGuest starts a guest, of which there may be one for each number below 65,536.
func newGuest(t *testing.T, name string, number int) *guest {
	t.Helper()
	return newGuestWithKey(t, name, number, nil)
}

// newGuestWithKey is newGuest for one that proves a key.
func newGuestWithKey(t *testing.T, name string, number int, key []byte) *guest {
	t.Helper()
	g := &guest{
		t: t, name: name, ip: netip.AddrFrom4([4]byte{127, 1, byte(number >> 8), byte(number)}),
		path: filepath.Join(t.TempDir(), "s"), changed: make(chan struct{}), key: key,
	}
	g.now.Generation = 1
	g.start()
	t.Cleanup(func() { g.stop() })
	return g
}

func (g *guest) start() {
	g.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	g.server = &tunnel.Server{Config: tunnel.Config{AgentVersion: "(devel)", Key: g.key, Log: quiet}, Source: func() (announce.Announcement, <-chan struct{}) {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.now, g.changed
	}}
	l, err := endpoint.Listen(endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: g.path}, nil, quiet)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.server.Serve(ctx, l) }()
	g.stop = sync.OnceFunc(func() { cancel(); <-done })
}

// announceEphemeral adds a port that its kernel has chosen.
func (g *guest) announceEphemeral(process string, port uint16) {
	g.announce(process, port)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now.Generation++
	g.now.Listeners = slices.Clone(g.now.Listeners)
	g.now.Listeners[len(g.now.Listeners)-1].Ephemeral = true
	close(g.changed)
	g.changed = make(chan struct{})
}

// announce adds ports of programs of a name to what listens.
func (g *guest) announce(process string, ports ...uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now.Generation++
	g.now.Listeners = slices.Clone(g.now.Listeners)
	for _, port := range ports {
		g.now.Listeners = append(g.now.Listeners, portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(g.ip, port), Process: process})
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

// serve serves a site on a port, which is announced.
func (g *guest) serve(process string, port uint16) {
	g.t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(g.ip, port).String())
	if err != nil {
		g.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<!doctype html><title>%s</title><h1>%s %s</h1>", g.name, g.name, r.URL.Path)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: event of %s\n\n", g.name)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.Handle("/socket", websocket.Handler(func(c *websocket.Conn) { _, _ = io.Copy(c, c) }))
	srv := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	g.t.Cleanup(func() { _ = srv.Close(); <-done })
	g.announce(process, port)
}

// host is an agent that serves guests.
type host struct {
	t      *testing.T
	dir    string
	port   uint16 // of the page
	client *control.Client
}

// startHost runs an agent until the test ends.
func startHost(t *testing.T, guests ...*guest) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), port: 7070} // which is free: tests have a network of their own
	socket := filepath.Join(h.dir, "rum-host-agent.sock")
	h.client = control.NewClient(socket)
	args := []string{"run", "--socket", socket}
	for _, g := range guests {
		vm := g.name + "=unix:" + g.name + ".sock"
		if g.key != nil {
			file := filepath.Join(h.dir, g.name+".key")
			if err := os.WriteFile(file, g.key, 0o600); err != nil {
				t.Fatal(err)
			}
			vm += ",key=" + file
		}
		args = append(args, "--vm", vm)
		if err := os.Symlink(g.path, filepath.Join(h.dir, g.name+".sock")); err != nil {
			t.Fatal(err)
		}
	}
	var log logbuf.Buffer
	cmd := exec.Command(agent, args...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+h.dir, "XDG_STATE_HOME="+h.dir, "XDG_CONFIG_HOME="+h.dir)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		watchdog := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer watchdog.Stop()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("the agent: %v\n%.10000s", err, log.String())
		}
	})
	h.eventually("the agent to have linked to its guests", func() error {
		st, err := h.client.StatusOf(t.Context(), status.Query{Rows: 1})
		if err == nil && (len(st.VMs) < len(guests) || st.Page == nil || st.Page.State != status.Active) {
			err = fmt.Errorf("%d VMs, page %+v", len(st.VMs), st.Page)
		}
		for _, vm := range st.VMs {
			if vm.State != status.Connected {
				err = fmt.Errorf("%s is %s: %s", vm.Name, vm.State, vm.Error)
			}
		}
		return err
	})
	return h
}

// link is one to the page.
func (h *host) link() string {
	h.t.Helper()
	url, err := h.client.Link(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return url
}

// url is that of a name that the agent serves.
func (h *host) url(name, path string) string {
	return fmt.Sprintf("http://%s:%d%s", name, h.port, path)
}

func (h *host) eventually(what string, check func() error) {
	h.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	h.t.Fatalf("waited in vain for %s: %v", what, err)
}

// holder is a server of this host at an address.
func holder(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}
