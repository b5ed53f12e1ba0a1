package main

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

func TestSystemdHearsOfReadyWhenTheSocketAnswers(t *testing.T) {
	dir := t.TempDir()
	notify := filepath.Join(dir, "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", notify)
	socket := filepath.Join(dir, "s")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	root := newRoot()
	root.SetArgs([]string{"run", "--vm", "dev=unix:" + filepath.Join(dir, "none"), "--socket", socket})
	root.SetErr(io.Discard)
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()

	hear := func(want string) {
		t.Helper()
		_ = systemd.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 100)
		n, err := systemd.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("heard %q, %v, want %q", buf[:n], err, want)
		}
	}
	hear("READY=1")
	if _, err := control.NewClient(socket).Status(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	hear("STOPPING=1")
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}
