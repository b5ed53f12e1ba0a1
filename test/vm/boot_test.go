//go:build e2e

package vm_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/vm"
)

func start(t *testing.T, cfg vm.Config) (*vm.VM, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	v, err := vm.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Stop)
	began := time.Now()
	if err := v.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("booted in %v", time.Since(began).Round(10*time.Millisecond))
	return v, ctx
}

func run(t *testing.T, ctx context.Context, v *vm.VM, command string) string {
	t.Helper()
	out, err := v.Run(ctx, command)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func TestGuestBootsRunsCommandsAndPowersOff(t *testing.T) {
	v, ctx := start(t, vm.Config{Guest: vm.Initramfs{Hostname: "box", Script: "echo hello >/run/script"}})
	if got := run(t, ctx, v, "hostname; cat /run/script; ip -o addr show lo | wc -l"); got != "box\nhello\n2" {
		t.Errorf("the guest says %q", got)
	}
	if nics := run(t, ctx, v, "ls /sys/class/net"); nics != "lo" {
		t.Errorf("a guest without Nets has %q", nics)
	}
	var exit *vm.ExitError
	if _, err := v.Run(ctx, "echo no; exit 7"); !errors.As(err, &exit) || exit.Status != 7 || exit.Output != "no\n" {
		t.Errorf("a failing command gave %v", err)
	}
	v.Run(ctx, "poweroff -f")
	if err := v.Wait(ctx); err != nil {
		t.Errorf("after poweroff: %v", err)
	}
	if _, err := v.Run(ctx, "true"); !errors.Is(err, vm.ErrEnded) {
		t.Errorf("a command in an ended guest gave %v", err)
	}
}

func TestGuestIsPausedResumedAndReset(t *testing.T) {
	v, ctx := start(t, vm.Config{})
	run(t, ctx, v, "touch /run/before")
	if err := v.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := v.Run(short, "true"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused guest answered: %v", err)
	}
	if err := v.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	run(t, ctx, v, "ls /run/before")
	if err := v.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Run(ctx, "ls /run/before"); err == nil {
		t.Error("the guest is the same after a reset")
	}
}

func TestAgentPortCarriesBytesBothWays(t *testing.T) {
	v, ctx := start(t, vm.Config{Guest: vm.Initramfs{
		// The port reads as ended while nobody is connected on the host.
		Script: "while :; do cat 0<>/dev/virtio-ports/" + vm.AgentPort + " 1>&0; usleep 50000; done",
	}})
	conn, err := net.Dial("unix", v.SerialSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// What comes between two cats is lost: the kernel discards it on close.
	echo := make([]byte, 5)
	for string(echo) != "ping\n" {
		if _, err := conn.Write([]byte("ping\n")); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := io.ReadFull(conn, echo); err != nil && ctx.Err() != nil {
			t.Fatalf("the port echoed nothing: %v", err)
		}
	}
}
