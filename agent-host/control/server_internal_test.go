package control

import (
	"context"
	"iter"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// TestClientsThatDoNotReadKeepNobodyFromAnAnswer asks for much, more often than answers
// are given at a time, and reads none of it.
func TestClientsThatDoNotReadKeepNobodyFromAnAnswer(t *testing.T) {
	before := answerWithin
	t.Cleanup(func() { answerWithin = before })
	answerWithin = 200 * time.Millisecond
	vm := status.VM{Name: "dev", Forwards: make([]status.Forward, 4096)}
	for i := range vm.Forwards {
		vm.Forwards[i].Reason = strings.Repeat("x", 256)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		s := &Server{
			Status: func() status.Status { return status.Status{} },
			VMs:    func(status.Query) iter.Seq[status.VM] { return slices.Values([]status.VM{vm}) },
			Log:    slog.New(slog.DiscardHandler),
		}
		if err := s.Serve(ctx, l); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	for range maxClients {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET " + statusPath + " HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	asking, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	for {
		_, err := NewClient(path).Status(asking)
		if err == nil {
			break
		}
		if asking.Err() != nil {
			t.Fatal(err)
		}
	}
}
