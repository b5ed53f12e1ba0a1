package control

import (
	"context"
	"io"
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
	asking, stop := context.WithTimeout(t.Context(), 2*time.Minute)
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

// TestAGuestThatDoesNotEndItsLogIsCutOffUnlessItIsFollowed has one that sends a line at a time without end.
func TestAGuestThatDoesNotEndItsLogIsCutOffUnlessItIsFollowed(t *testing.T) {
	before := logWithin
	t.Cleanup(func() { logWithin = before })
	logWithin = 200 * time.Millisecond
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		s := &Server{Log: slog.New(slog.DiscardHandler), GuestLog: func(context.Context, string, uint32, bool) (io.ReadCloser, error) {
			theirs, ours := net.Pipe()
			running.Go(func() {
				for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
					if _, err := ours.Write([]byte("line\n")); err != nil {
						return
					}
				}
			})
			return theirs, nil
		}}
		_ = s.Serve(ctx, l)
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	within, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	log, err := NewClient(path).Log(within, "dev", 10, false)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if _, err := io.Copy(io.Discard, log); err == nil || within.Err() != nil {
		t.Errorf("the log ends with %v", err)
	}
	followed, err := NewClient(path).Log(within, "dev", 10, true)
	if err != nil {
		t.Fatal(err)
	}
	defer followed.Close()
	if _, err := io.CopyN(io.Discard, followed, 5*100); err != nil { // for five times as long, or longer
		t.Errorf("a log that is followed ends with %v", err)
	}
}
