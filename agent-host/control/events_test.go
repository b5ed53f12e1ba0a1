package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/events"
	"github.com/rum-vm/rum-agent/agent-host/status"
)

// serveEvents runs a server with a history until the test ends, or stop is called.
func serveEvents(t *testing.T) (path string, history *events.History, stop func()) {
	t.Helper()
	path, history = socket(t), events.New()
	l, err := control.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // it outlives who watches
	var wg sync.WaitGroup
	wg.Go(func() {
		s := &control.Server{
			Status: func() status.Status { return status.Status{} },
			VMs:    func(status.Query) iter.Seq[status.VM] { return func(func(status.VM) bool) {} },
			Events: history, Log: slog.New(slog.DiscardHandler),
		}
		if err := s.Serve(ctx, l); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return path, history, stop
}

// watch follows events until the test ends.
func watch(t *testing.T, path, vm, since string) <-chan events.Event {
	t.Helper()
	got := make(chan events.Event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := control.NewClient(path).Events(ctx, vm, since, func(line []byte) error {
			var e events.Event
			err := json.Unmarshal(line, &e)
			got <- e
			return err
		}); err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return got
}

func TestAClientGetsHistoryOfItsVMAndThenWhatHappensAtOnce(t *testing.T) {
	path, history, _ := serveEvents(t)
	for _, vm := range []string{"dev", "other", "dev"} {
		history.Publish(events.Event{Kind: events.VMUp, VM: vm})
	}
	got := watch(t, path, "dev", "10m")
	for range 2 {
		if e := <-got; e.VM != "dev" {
			t.Errorf("%+v", e)
		}
	}
	began := time.Now()
	history.Publish(events.Event{Kind: events.VMDown, VM: "dev", Words: "gone"})
	if e := <-got; e.Kind != events.VMDown || e.Words != "gone" {
		t.Errorf("%+v", e)
	}
	t.Logf("an event arrived after %v", time.Since(began))
}

func TestTheEndOfTheAgentIsToldApartFromThatOfTheClient(t *testing.T) {
	path, history, stop := serveEvents(t)
	history.Publish(events.Event{Kind: events.VMUp, VM: "dev"})
	err := control.NewClient(path).Events(t.Context(), "", "1h", func([]byte) error { go stop(); return nil })
	if !errors.Is(err, control.ErrEnded) {
		t.Errorf("the agent ended: %v", err)
	}
	if err := control.NewClient(path).Events(t.Context(), "", "", nil); !errors.Is(err, control.ErrNoAgent) {
		t.Errorf("there is none: %v", err)
	}
}

func TestWatchersHaveABoundAndLeaveRoomForStatus(t *testing.T) {
	path, _, _ := serveEvents(t)
	var refusal string
	for range 70 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 4096)
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := c.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		if refusal = string(answer[:n]); !strings.Contains(refusal, "200 OK") {
			break
		}
	}
	if !strings.Contains(refusal, "503") || !strings.Contains(refusal, "32 clients watch or wait already") {
		t.Errorf("the answer to one too many is %q", refusal)
	}
	if _, err := control.NewClient(path).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAnUnknownPositionIsRefused(t *testing.T) {
	path, _, _ := serveEvents(t)
	for _, since := range []string{"yesterday", "-5m", "1.5"} {
		err := control.NewClient(path).Events(t.Context(), "", since, nil)
		if refused, ok := errors.AsType[*control.RefusedError](err); !ok || refused.Status != 400 {
			t.Errorf("since %q: %v", since, err)
		}
	}
}
