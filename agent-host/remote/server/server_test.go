package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/agent-host/remote/protocol"
	"github.com/rum-vm/rum-agent/test/ownnet"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/mux"
)

func TestMain(m *testing.M) { ownnet.Enter(); goleak.VerifyTestMain(m) }

// host is what a relay's host agent has of it.
type host struct {
	session *mux.Session
	control *mux.Conn
	relay   *Server
}

// serve runs a relay that sees some domains.
func serve(t *testing.T, domains ...libvirt.Domain) *host {
	t.Helper()
	ours, theirs := net.Pipe()
	log := slog.New(slog.DiscardHandler)
	s := &Server{Version: "v1", Log: log, Watch: func(ctx context.Context, seen func(libvirt.Snapshot)) error {
		seen(libvirt.Snapshot{Domains: domains})
		<-ctx.Done()
		return nil
	}}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), theirs) }()
	if _, err := protocol.ReadRelayLine(ours); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write(protocol.HostLine("v1")); err != nil {
		t.Fatal(err)
	}
	h := &host{relay: s}
	var err error
	h.session, err = mux.NewWithResets(ours, true, limits, budget.New(budget.Limits{Share: 1, Burst: time.Hour}), log, func(int) error { return errors.New("a relay opens none") })
	if err == nil {
		h.control, err = h.session.Open()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.session.Close()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the relay ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the relay does not end with its input")
		}
	})
	_ = h.control.SetReadDeadline(time.Now().Add(20 * time.Second))
	v, _, err := protocol.ReadInventory(h.control)
	if err != nil || len(v.Domains) != len(domains) {
		t.Fatalf("the relay shows %d VMs of %d: %v", len(v.Domains), len(domains), err)
	}
	return h
}

// ask opens a stream with a request and returns it behind the answer.
func (h *host) ask(t *testing.T, request []byte) (*mux.Conn, error) {
	t.Helper()
	c, err := h.session.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	var a protocol.AnswerReader
	return c, a.Read(c)
}

// greeter listens and greets.
func greeter(t *testing.T, network, addr string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	return l.Addr()
}

func TestARelayConnectsToTheVMsThatItListsAndNothingElse(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent")
	greeter(t, "unix", socket)
	port := greeter(t, "tcp", "127.0.0.1:0").(*net.TCPAddr).AddrPort().Port()
	dev, off, bare := uuid.New(), uuid.New(), uuid.New()
	h := serve(t,
		libvirt.Domain{Name: "dev", UUID: dev.String(), State: libvirt.Running, Endpoint: "unix:" + socket, BridgeIP: netip.MustParseAddr("127.0.0.1")},
		libvirt.Domain{Name: "off", UUID: off.String(), State: libvirt.Off},
		libvirt.Domain{Name: "bare", UUID: bare.String(), State: libvirt.Running, Problem: "no device"},
		libvirt.Domain{Name: "command", UUID: uuid.NewString(), State: libvirt.Running, Endpoint: "exec:echo hello"},
	)
	for name, q := range map[string]protocol.Request{"agent": {To: protocol.ToAgent, UUID: dev}, "bridge": {To: protocol.ToBridge, UUID: dev, Port: port}} {
		t.Run(name, func(t *testing.T) {
			c, err := h.ask(t, q.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	for name, row := range map[string]struct {
		q    protocol.Request
		want string
	}{
		"another UUID":    {protocol.Request{To: protocol.ToAgent, UUID: uuid.UUID{1}}, "there is no VM 01000000-0000-0000-0000-000000000000"},
		"no UUID":         {protocol.Request{To: protocol.ToBridge, Port: port}, "there is no VM 00000000-0000-0000-0000-000000000000"},
		"a VM that rests": {protocol.Request{To: protocol.ToAgent, UUID: off}, "off does not run"},
		"no device":       {protocol.Request{To: protocol.ToAgent, UUID: bare}, "no device"},
		"no address":      {protocol.Request{To: protocol.ToBridge, UUID: bare, Port: port}, "bare has no address on a network of this host"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.ask(t, row.q.Append(nil))
			if refused, ok := errors.AsType[*protocol.RefusedError](err); !ok || refused.Said != row.want {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		_, err := h.ask(t, protocol.Request{To: protocol.ToBridge, UUID: dev, Port: 1}.Append(nil))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want a refusal", err)
		}
	})
	for name, request := range map[string][]byte{"another target": append([]byte{3}, make([]byte, 18)...), "port 0": protocol.Request{To: protocol.ToBridge, UUID: dev}.Append(nil)} {
		t.Run(name, func(t *testing.T) {
			if _, err := h.ask(t, request); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
		})
	}
}

func TestAnAgentThatIsNotThereIsSaidToBe(t *testing.T) {
	dev := uuid.New()
	h := serve(t, libvirt.Domain{Name: "dev", UUID: dev.String(), State: libvirt.Running, Endpoint: "unix:" + filepath.Join(t.TempDir(), "none")})
	_, err := h.ask(t, protocol.Request{To: protocol.ToAgent, UUID: dev}.Append(nil))
	if !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

// Over the bridge nobody but the session tells.
func TestResetsAndEndsOverTheBridgeAreWhatTheyWere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dev := uuid.New()
	h := serve(t, libvirt.Domain{Name: "dev", UUID: dev.String(), State: libvirt.Running, Problem: "none", BridgeIP: netip.MustParseAddr("127.0.0.1")})
	connect := func() (*mux.Conn, *net.TCPConn) {
		c, err := h.ask(t, protocol.Request{To: protocol.ToBridge, UUID: dev, Port: l.Addr().(*net.TCPAddr).AddrPort().Port()}.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(20 * time.Second))
		return c, s.(*net.TCPConn)
	}

	c, s := connect()
	_ = s.SetLinger(0)
	_ = s.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the host reads %v of a service that resets, want a reset", err)
	}

	c, s = connect()
	c.Abort()
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the service reads %v of a host that resets, want a reset", err)
	}
	_ = s.Close()

	c, s = connect()
	fmt.Fprint(c, "question")
	_ = c.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || string(got) != "question" {
		t.Errorf("the service reads %q, %v", got, err)
	}
	fmt.Fprint(s, "answer")
	_ = s.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "answer" {
		t.Errorf("the host reads %q, %v", got, err)
	}
}
