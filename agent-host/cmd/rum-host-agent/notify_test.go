package main

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

// TestSystemdHearsOfStatesWhenTheyAreSo has READY when the socket answers, and a reload that begins and ends.
func TestSystemdHearsOfStatesWhenTheyAreSo(t *testing.T) {
	dir := t.TempDir()
	notify := filepath.Join(dir, "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", notify)
	t.Setenv("WATCHDOG_USEC", "60000000")
	socket := filepath.Join(dir, "s")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	root := newRoot()
	root.SetArgs([]string{"run", "--vm", "dev=unix:" + filepath.Join(dir, "none"), "--socket", socket, "--http", "none"})
	root.SetErr(io.Discard)
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()

	var heard map[string]string
	hear := func(want string) {
		t.Helper()
		_ = systemd.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 100)
		n, err := systemd.Read(buf)
		heard = make(map[string]string)
		for _, line := range strings.Split(string(buf[:n]), "\n") {
			key, value, _ := strings.Cut(line, "=")
			heard[key] = value
		}
		if err != nil || heard[want] != "1" {
			t.Fatalf("heard %q, %v, want %s=1", buf[:n], err, want)
		}
	}
	states := make(map[string]bool)
	for range 2 { // in either order
		_ = systemd.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 100)
		n, err := systemd.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		states[string(buf[:n])] = true
	}
	if !states["READY=1"] || !states["WATCHDOG=1"] {
		t.Fatalf("heard %v", states)
	}
	client := control.NewClient(socket)
	if _, err := client.Status(ctx); err != nil {
		t.Error(err)
	}
	if _, err := client.Reload(ctx); err != nil {
		t.Error(err)
	}
	hear("RELOADING")
	if usec, err := strconv.ParseUint(heard["MONOTONIC_USEC"], 10, 64); err != nil || usec == 0 {
		t.Errorf("heard %v", heard)
	}
	hear("READY")
	cancel()
	hear("STOPPING")
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}
