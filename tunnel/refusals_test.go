package tunnel_test

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel"
	"github.com/rum-vm/rum-agent/tunnel/budget"
	"github.com/rum-vm/rum-agent/tunnel/stream"
)

// TestRefusedConnectionsDelayNothingElseOfTheirLink connects to a port where nothing
// listens, as any user of the host can by way of his host agent, and far more often than
// the guest agent pays for. Heartbeats go on, and another connection works.
func TestRefusedConnectionsDelayNothingElseOfTheirLink(t *testing.T) {
	for name, row := range map[string]struct {
		kind  string
		cfg   tunnel.Config
		times int32 // without a key: more than its budget, and the silence of a paused guest
	}{
		"with a key":        {stream.PathRaw, keyed, 3000},
		"without a key":     {stream.PathRaw, tunnel.Config{}, 800},
		"in one connection": {stream.PathMux, keyed, 3000},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLink(t, startGuestLogging(t, row.kind, row.cfg, io.Discard), row.cfg)
			nobody, somebody := refused(t), service(t, echo)
			var left atomic.Int32
			left.Store(row.times)
			var users sync.WaitGroup
			for range 8 {
				users.Go(func() {
					for left.Add(-1) >= 0 && t.Context().Err() == nil {
						s, err := l.Open(t.Context(), nobody, nil)
						if err != nil {
							t.Error(err)
							return
						}
						_ = s.Answer(t.Context())
						s.Abort()
					}
				})
			}
			done := make(chan struct{})
			go func() { users.Wait(); close(done) }()
			over := false
			for began := time.Now(); !over || !l.LastSeen().After(began); time.Sleep(10 * time.Millisecond) {
				if l.Silent() {
					t.Fatalf("the guest is taken for paused, %d refusals before the end", left.Load())
				}
				select {
				case <-done:
					if !over {
						over, began = true, time.Now()
					}
				default:
				}
			}
			c := through(t, l, somebody)
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestTheEndsOfStreamsDoNotWaitForTheRestOfTheLink has a guest in debt for everything else
// that it sends, as a program in it can have it that floods a reverse listener.
func TestTheEndsOfStreamsDoNotWaitForTheRestOfTheLink(t *testing.T) {
	for _, kind := range []string{stream.PathRaw, reused} {
		t.Run(kind, func(t *testing.T) {
			cfg := keyed
			cfg.Budget = budget.New(budget.Limits{Share: 1e-6, Burst: time.Hour})
			l := startLink(t, startGuest(t, kind, keyed), cfg)
			target := service(t, echo)
			for i := range 20 {
				c := through(t, l, target)
				cfg.Budget.Spend(2 * time.Hour)
				if _, err := c.Write([]byte("all of it")); err != nil {
					t.Fatal(err)
				}
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(c); err != nil || string(b) != "all of it" {
					t.Fatalf("connection %d: %q (%v), want all of it and its end", i, b, err)
				}
			}
		})
	}
}
