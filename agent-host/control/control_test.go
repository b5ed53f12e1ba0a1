package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	goleak.VerifyTestMain(m)
}

func socket(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }

// serve runs a server at path until the test ends.
func serve(t *testing.T, path string, st status.Status) {
	t.Helper()
	l, err := control.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		s := &control.Server{
			Status: func() status.Status { return st },
			VMs:    func(status.Query) iter.Seq[status.VM] { return slices.Values(st.VMs) },
			Log:    slog.New(slog.DiscardHandler),
		}
		if err := s.Serve(ctx, l); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func TestStatusArrivesAsItWasSent(t *testing.T) {
	seen := time.Unix(1700000000, 0).UTC()
	want := status.Status{Version: "1", PID: 7, UptimeSeconds: 12.5, VMs: []status.VM{{
		Name: "dev", State: status.Connected, LastSeen: &seen,
		Forwards: []status.Forward{{Proto: "tcp", Port: 8080, Guest: []string{"[::]:8080"}, Host: []string{"127.0.0.1:8080"}, State: status.Active, BytesIn: 9}},
	}}}
	path := socket(t)
	serve(t, path, want)
	got, err := control.NewClient(path).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestAnAnswerIsWhatWasAskedFor(t *testing.T) {
	path := socket(t)
	l, err := control.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan status.Query, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		s := &control.Server{
			Status: func() status.Status { return status.Status{Version: "1"} },
			VMs: func(q status.Query) iter.Seq[status.VM] {
				asked <- q
				return slices.Values([]status.VM{{Name: "a"}, {Name: "b", More: map[string]int{status.Active: 3}}})
			},
			Log: slog.New(slog.DiscardHandler),
		}
		_ = s.Serve(ctx, l)
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	want := status.Query{VM: "a&b=c", Rows: 200}
	st, err := control.NewClient(path).StatusOf(t.Context(), want)
	if got := <-asked; err != nil || got != want {
		t.Errorf("asked for %+v: %v", got, err)
	}
	if st.Version != "1" || len(st.VMs) != 2 || st.VMs[1].More[status.Active] != 3 {
		t.Errorf("%+v", st)
	}
}

// The field names are a contract with scripts.
func TestStatusFieldNamesStay(t *testing.T) {
	st := status.Status{VMs: []status.VM{{Forwards: []status.Forward{{}}}}}
	text, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	var top struct {
		VMs []map[string]any `json:"vms"`
	}
	if err := json.Unmarshal(text, &top); err != nil {
		t.Fatal(err)
	}
	has := func(m map[string]any, names string) {
		t.Helper()
		for _, name := range strings.Fields(names) {
			if _, ok := m[name]; !ok {
				t.Errorf("%q is missing in %v", name, m)
			}
		}
	}
	var all map[string]any
	_ = json.Unmarshal(text, &all)
	has(all, "version pid uptime_seconds vms")
	has(top.VMs[0], "name endpoint state auth agent_version generation last_seen bridge_ip loopback error forwards")
	has(top.VMs[0]["forwards"].([]any)[0].(map[string]any), "proto port guest host listening state reason path rule process "+
		"connections_active connections_total bytes_in bytes_out last_error last_error_at")
}

func TestNoAgentIsSaid(t *testing.T) {
	path := socket(t)
	if _, err := control.NewClient(path).Status(t.Context()); !errors.Is(err, control.ErrNoAgent) {
		t.Errorf("no socket: %v", err)
	}
	leaveStale(t, path)
	if _, err := control.NewClient(path).Status(t.Context()); !errors.Is(err, control.ErrNoAgent) {
		t.Errorf("stale socket: %v", err)
	}
}

// leaveStale leaves the socket of a listener that is gone, as a kill does.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestSocketOfDeadAgentIsReplaced(t *testing.T) {
	path := socket(t)
	leaveStale(t, path)
	serve(t, path, status.Status{PID: 1})
	if _, err := control.NewClient(path).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLivingAgentKeepsItsSocket(t *testing.T) {
	path := socket(t)
	serve(t, path, status.Status{PID: 1})
	_, err := control.Listen(t.Context(), path)
	inUse, ok := errors.AsType[*control.InUseError](err)
	if !ok || inUse.PID != os.Getpid() {
		t.Fatalf("want InUseError with pid %d, got %v", os.Getpid(), err)
	}
	if _, err := control.NewClient(path).Status(t.Context()); err != nil {
		t.Errorf("the first agent no longer answers: %v", err)
	}
}

func TestOneOfManyAgentsStartingAtOnceWins(t *testing.T) {
	for range 50 {
		path := socket(t)
		leaveStale(t, path)
		var wg sync.WaitGroup
		won := make(chan net.Listener, 8)
		start := make(chan struct{})
		for range cap(won) {
			wg.Go(func() {
				<-start
				l, err := control.Listen(t.Context(), path)
				if err == nil {
					won <- l
				} else if _, ok := errors.AsType[*control.InUseError](err); !ok {
					t.Errorf("loser: %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		close(won)
		if len(won) != 1 {
			t.Errorf("%d agents have the socket", len(won))
		}
		for l := range won {
			l.Close()
		}
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	path := socket(t)
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if l, err := control.Listen(t.Context(), path); err == nil {
		l.Close()
		t.Error("a file was taken for a socket")
	}
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("the file now holds %q", text)
	}
}

// A watcher sees the socket's mode from the moment it has a name.
func TestOnlyTheOwnerCanEverConnect(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := socket(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if info, err := os.Lstat(path); err == nil && info.Mode() != fs.ModeSocket|0o600 {
				t.Errorf("mode %v", info.Mode())
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 200 {
		l, err := control.Listen(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("%v %v", info, err)
		}
		l.Close()
	}
	close(stop)
	wg.Wait()
}

func TestSocketIsGoneAfterwards(t *testing.T) {
	path := socket(t)
	l, err := control.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestDefaultSocketFollowsTheSession(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	if got := control.DefaultSocket(); got != "/run/user/1000/rum-host-agent.sock" {
		t.Error(got)
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got := control.DefaultSocket(); got != "/run/rum-host-agent.sock" {
		t.Error(got)
	}
}

func TestTooLongPathIsSaid(t *testing.T) {
	_, err := control.Listen(t.Context(), "/tmp/"+strings.Repeat("x", 200))
	if err == nil || !strings.Contains(err.Error(), "longer than 107 bytes") {
		t.Error(err)
	}
}
