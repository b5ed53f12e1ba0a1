package libvirt

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watchUntilTold runs a watcher until its first snapshot, then ends it.
func watchUntilTold(t *testing.T, uri string) Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w := Watcher{URI: uri, Log: slog.New(slog.DiscardHandler)}
	var first *Snapshot
	done := make(chan error, 1)
	go func() {
		done <- w.Run(ctx, func(s Snapshot) {
			if first == nil {
				first = &s
				cancel()
			}
		})
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("a cancelled Run returned %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("Run did not end")
	}
	if first == nil {
		t.Fatal("nothing was told")
	}
	return *first
}

func TestAnAbsentDaemonIsShown(t *testing.T) {
	s := watchUntilTold(t, filepath.Join(t.TempDir(), "absent"))
	if !errors.Is(s.Err, ErrUnavailable) || len(s.Domains) != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestAWrongURIIsShown(t *testing.T) {
	if s := watchUntilTold(t, "xen:///system"); s.Err == nil {
		t.Errorf("got %+v", s)
	}
}

func TestAWatcherEndsWhileTheDaemonHangs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := Watcher{URI: silence(t), Log: slog.New(slog.DiscardHandler)}
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, func(Snapshot) {}) }()
	time.AfterFunc(50*time.Millisecond, cancel)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run did not end")
	}
}
