package hostagent_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// vmm is the unix socket of a VMM whose guest has no agent, and at a port of vsock something that
// answers with what it was sent, once that has ended.
func vmm(t *testing.T, port int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "v.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("CONNECT %d\n", port) {
					return
				}
				_, _ = io.WriteString(c, "OK 1\n")
				text, _ := io.ReadAll(in)
				_, _ = c.Write(text)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return path
}

// startAgentOn runs an agent with a VM behind the socket of a VMM.
func startAgentOn(t *testing.T, path string) *hostagent.Agent {
	t.Helper()
	a := startAgentWith(t, hostagent.Config{Version: "test", Log: quiet})
	add(t, a, hostagent.VM{Name: "dev", Endpoint: endpoint.Endpoint{Scheme: endpoint.SchemeHybrid, Path: path, Port: endpoint.DefaultPort}})
	return a
}

func connect(t *testing.T, a *hostagent.Agent, port uint16, as hostagent.Connection) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := a.Connect(ctx, "dev", port, as)
	if c != nil {
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// A guest whose systemd has an SSH server at vsock port 22 needs neither an agent nor a network.
func TestTheSSHServerOfSystemdIsReachedWhereNoneIsAnnounced(t *testing.T) {
	t.Parallel()
	a := startAgentOn(t, vmm(t, 22))
	for _, handOver := range []bool{false, true} {
		c, err := connect(t, a, 22, hostagent.Connection{HandOver: handOver})
		if err != nil || c == nil {
			t.Fatal(err)
		}
		if _, itself := c.(*net.UnixConn); itself != handOver {
			t.Errorf("handed over: %v, and it is %T", handOver, c)
		}
		text := strings.Repeat("SSH-2.0\r\n", 100_000)
		go func() {
			_, _ = io.WriteString(c, text)
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
		}()
		if got, err := io.ReadAll(c); err != nil || string(got) != text {
			t.Errorf("%d bytes of %d: %v", len(got), len(text), err)
		}
	}
	if _, err := connect(t, a, 23, hostagent.Connection{HandOver: true}); err == nil || err.Error() != "nobody knows whether something listens on port 23 of dev: the guest agent does not answer" {
		t.Errorf("another port: %v", err)
	}
}

func TestWithoutAnySSHServerItIsSaidWhereItWasLookedFor(t *testing.T) {
	t.Parallel()
	path := vmm(t, 1)
	a := startAgentOn(t, path)
	if c, err := connect(t, a, 22, hostagent.Connection{}); c != nil || err == nil || !strings.Contains(err.Error(), "no SSH server of systemd's answers: hybrid:"+path+":22: ") {
		t.Errorf("%v", err)
	}
	if c, err := a.Connect(t.Context(), "other", 22, hostagent.Connection{}); c != nil || err != nil {
		t.Errorf("a VM that is not there: %v", err)
	}
}

// What ends with the agent is reset.
func TestConnectionsOfCommandsEndWithTheAgent(t *testing.T) {
	t.Parallel()
	var c net.Conn
	t.Run("agent", func(t *testing.T) {
		a := startAgentOn(t, vmm(t, 22))
		var err error
		if c, err = a.Connect(t.Context(), "dev", 22, hostagent.Connection{}); err != nil {
			t.Fatal(err)
		}
	})
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d bytes, %v, want a reset", n, err)
	}
}
