package tunnel_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/stream"
	"go.uber.org/goleak"
)

// asStdioGuest makes the test binary a guest agent on its standard input and
// output, for exec endpoints.
const asStdioGuest = "RUM_TEST_STDIO_GUEST"

func TestMain(m *testing.M) {
	ownnet.Enter()
	if os.Getenv(asStdioGuest) != "" {
		s := &tunnel.Server{Source: (&source{changed: make(chan struct{})}).get}
		if os.Getenv(asStdioGuest) == withKey {
			s.Config = keyed
		}
		if err := s.ServeLine(context.Background(), endpoint.Stdio(), false); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if role := strings.Fields(os.Getenv(childRole)); len(role) > 0 {
		fmt.Fprintln(os.Stderr, beChild(role))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// eachEndpoint runs a test over every kind of endpoint that needs no VM.
func eachEndpoint(t *testing.T, f func(t *testing.T, l *link)) {
	t.Run("unix", func(t *testing.T) {
		f(t, startLink(t, startGuest(t, stream.PathRaw, tunnel.Config{}), tunnel.Config{}))
	})
	t.Run("serial", func(t *testing.T) {
		f(t, startLink(t, startGuest(t, stream.PathMux, tunnel.Config{}), tunnel.Config{}))
	})
	t.Run("hybrid", func(t *testing.T) {
		g := startGuest(t, stream.PathRaw, tunnel.Config{})
		g.endpoint = startVMM(t, g.endpoint.Path)
		f(t, startLink(t, g, tunnel.Config{}))
	})
	t.Run("exec", func(t *testing.T) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		e, err := endpoint.Parse(fmt.Sprintf("exec:%s=1 %s", asStdioGuest, self))
		if err != nil {
			t.Fatal(err)
		}
		f(t, startLink(t, &guest{endpoint: e}, tunnel.Config{}))
	})
}

func TestHalfCloseWorksThroughEveryEndpoint(t *testing.T) { eachEndpoint(t, clientEndsFirst) }

func TestResetWorksThroughEveryEndpoint(t *testing.T) { eachEndpoint(t, serviceResets) }

func TestAVMMThatRefusesIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmm.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.Close()
		}
	}()
	_, err = dialLink(t, endpoint.Endpoint{Scheme: endpoint.SchemeHybrid, Path: path, Port: 7}, tunnel.Config{})
	if err == nil || !strings.Contains(err.Error(), "port 7") {
		t.Fatalf("%v, want an error that names the port", err)
	}
}

func TestACommandThatDoesNotSpeakIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var logged logbuf.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	_, err := tunnel.Dial(ctx, endpoint.Endpoint{Scheme: endpoint.SchemeExec, Command: "echo permission denied >&2; exec sleep 60"}, tunnel.Config{Log: log})
	if err == nil {
		t.Fatal("a link with sleep")
	}
	if !strings.Contains(logged.String(), "permission denied") {
		t.Fatalf("what the command said was lost: %q", logged.String())
	}
}

func TestASecondAgentOnOneSocketIsRefused(t *testing.T) {
	e := endpoint.Endpoint{Scheme: endpoint.SchemeUnix, Path: filepath.Join(t.TempDir(), "a.sock")}
	log := slog.New(slog.DiscardHandler)
	first, err := endpoint.Listen(e, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if second, err := endpoint.Listen(e, nil, log); err == nil {
		_ = second.Close()
		t.Fatal("two agents on one socket")
	}
	_ = first.Close()

	// A dead agent's socket is in nobody's way.
	dead, err := net.Listen("unix", e.Path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = dead.Close()
	third, err := endpoint.Listen(e, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	_ = third.Close()
}
