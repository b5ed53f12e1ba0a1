package systemd

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func notified(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

// TestOnlyWhatGoesOnGivesASignOfLife has a check that does not return the second time.
func TestOnlyWhatGoesOnGivesASignOfLife(t *testing.T) {
	c := notified(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	ctx, cancel := context.WithCancel(t.Context())
	checks, stuck := 0, make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- Watchdog(ctx, func() {
			if checks++; checks == 2 {
				close(stuck)
				<-ctx.Done()
			}
		})
	}()
	buf := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "WATCHDOG=1" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	<-stuck
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Read(buf); err == nil {
		t.Errorf("%q from what is stuck", buf[:n])
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWithoutAServiceManagerNothingIsSent(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if Notified() {
		t.Error("notified")
	}
	if err := Notify("READY=1"); err != nil {
		t.Error(err)
	}
}
