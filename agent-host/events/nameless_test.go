package events

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// told is what is told of some events, each as KIND PORT PROCESS, and when since then.
func told(t *testing.T, happens func(h *History)) (lines []string, after []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := New()
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = h.Follow(ctx, 0, func(all []Event) error {
				for _, e := range all {
					lines = append(lines, fmt.Sprint(e.Kind, " ", e.Port, " ", e.Process))
					after = append(after, time.Since(began))
				}
				return nil
			})
		}()
		happens(h)
		time.Sleep(time.Second)
		cancel()
		<-done
	})
	return lines, after
}

func TestAnEventHasTheProcessThatBecomesKnownWithinAMoment(t *testing.T) {
	web := Event{Kind: Forwarding, VM: "dev", Proto: "tcp", Port: 80}
	named := web
	named.Process = "web[1]"
	other := named
	other.Port = 81
	for name, row := range map[string]struct {
		happens func(h *History)
		want    []string
		most    time.Duration
	}{
		"known":             {func(h *History) { h.Publish(named) }, []string{"forwarding 80 web[1]"}, 0},
		"known in a moment": {func(h *History) { h.Publish(web); h.Named(other); time.Sleep(time.Millisecond); h.Named(named) }, []string{"forwarding 80 web[1]"}, time.Millisecond},
		"never known":       {func(h *History) { h.Publish(web) }, []string{"forwarding 80 "}, nameWithin},
		"known too late":    {func(h *History) { h.Publish(web); time.Sleep(2 * nameWithin); h.Named(named) }, []string{"forwarding 80 "}, nameWithin},
		"what follows it waits for it": {func(h *History) {
			h.Publish(web)
			h.Publish(other)
			h.Publish(Event{Kind: Stopped, VM: "dev", Proto: "tcp", Port: 80})
		}, []string{"forwarding 81 web[1]", "forwarding 80 ", "stopped 80 "}, 0},
		"so does what happens to the VM": {func(h *History) {
			h.Publish(Event{Kind: VMUp, VM: "dev"})
			h.Publish(web)
			h.Publish(Event{Kind: VMDown, VM: "other"})
			h.Publish(Event{Kind: VMDown, VM: "dev"})
		}, []string{"vm_up 0 ", "vm_down 0 ", "forwarding 80 ", "vm_down 0 "}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			lines, after := told(t, row.happens)
			if !slices.Equal(lines, row.want) || slices.Max(after) > row.most {
				t.Errorf("%q after %v, want %q within %v", lines, after, row.want, row.most)
			}
		})
	}
}

// A guest may announce more ports than anybody follows.
func TestEventsThatWaitForAProcessHaveABound(t *testing.T) {
	h := New()
	for port := range 10 * Kept {
		h.Publish(Event{Kind: Forwarding, VM: "dev", Proto: "tcp", Port: uint16(port + 1)})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.held); n > Kept {
		t.Errorf("%d events wait", n)
	}
}
