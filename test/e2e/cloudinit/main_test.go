//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/debian"
	"github.com/rum-vm/rum-agent/test/e2e/cloudinit/cloudguest"
	"github.com/rum-vm/rum-agent/test/vm"
)

// stage is set for the binary's second life, inside a network namespace; its value is the directory with the agents.
const stage = "RUM_E2E_CLOUDINIT_AGENTS"

// The agents, built twice, because an upgrade needs a newer one.
const oldVersion, newVersion = "v0.0.1-old", "v0.0.2-new"

// newHost is the host agent of the newer one.
const newHost = "host-" + newVersion

func TestMain(m *testing.M) {
	if os.Getenv(stage) != "" {
		os.Exit(m.Run())
	}
	code, err := enterSandbox()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// enterSandbox gets everything that comes from the network, and then starts the binary again where there is none but
// its own loopback: the guest's interfaces end in QEMU, and whatever they let out has nowhere to go.
func enterSandbox() (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := vm.Require(); err != nil {
		return 1, err
	}
	for _, name := range []string{"mmdebstrap", "mke2fs", "unshare", "ip", "mount", "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(name); err != nil {
			return 1, fmt.Errorf("%s is missing; run: make deps", name)
		}
	}
	if _, err := vm.FetchKernel(ctx, nil); err != nil {
		return 1, err
	}
	for _, system := range []debian.System{cloudguest.System, cloudguest.OpenRC} {
		if _, err := system.Fetch(ctx, os.Stderr); err != nil {
			return 1, err
		}
	}
	dir, err := os.MkdirTemp("", "rum-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := buildAgents(ctx, dir); err != nil {
		return 1, err
	}
	args := append([]string{"--net", "--fork", "--kill-child", "sh", "-c", `ip link set lo up && exec "$0" "$@"`}, os.Args...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Env = append(os.Environ(), stage+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func buildAgents(ctx context.Context, dir string) error {
	const module = "github.com/rum-vm/rum-agent/"
	for name, args := range map[string][]string{
		"host":     {module + "agent-host/cmd/rum-host-agent"},
		newHost:    {"-ldflags=-X main.version=" + newVersion, module + "agent-host/cmd/rum-host-agent"},
		oldVersion: {"-ldflags=-s -w -X main.version=" + oldVersion, module + "agent-guest/cmd/rum-guest-agent"},
		newVersion: {"-ldflags=-s -w -X main.version=" + newVersion, module + "agent-guest/cmd/rum-guest-agent"},
	} {
		build := exec.CommandContext(ctx, "go", append([]string{"build", "-o", filepath.Join(dir, name)}, args...)...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}
