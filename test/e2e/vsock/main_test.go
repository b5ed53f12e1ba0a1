//go:build e2evsock

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/test/debian"
	"github.com/rum-vm/rum-agent/test/vm"
)

// host is the Debian VM that plays the host.
var host *vm.VM

// hostStalled is set when it stopped.
var hostStalled bool

// An attempt is a process of its own, because tests run once in each. One that ends with broken, because the machine
// that the host VM is broke, is followed by another, up to attempts.
const (
	attempt  = "RUM_TEST_ATTEMPT"
	attempts = 4
	broken   = 75
)

func TestMain(m *testing.M) {
	if os.Getenv(attempt) == "" {
		os.Exit(try())
	}
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// try runs the tests, and again where the host VM's kernel panicked or its processors stalled, as emulated ones with
// guests of their own do now and then. It is said each time: no program in the VM can be to blame for that.
func try() int {
	runtime.LockOSThread() // Pdeathsig is sent when the thread that forked ends
	for n := 1; ; n++ {
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", attempt, n))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		err := cmd.Run()
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := cmd.ProcessState.ExitCode()
		if code != broken || n == attempts {
			return code
		}
		fmt.Printf("attempt %d of %d: the host VM panicked or stalled; once more from the beginning\n", n, attempts)
	}
}

func testMain(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "rum-e2e-vsock-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	cargo, err := loadCargo(ctx, dir)
	if err != nil {
		return 1, err
	}
	if host, err = debian.StartHost(ctx, cargo, os.Stderr); err != nil {
		return 1, err
	}
	defer host.Stop()
	defer func() {
		if code != 0 || err != nil {
			fmt.Fprintf(os.Stderr, "console of the host VM:\n%s\n", host.Console())
			if hostStalled || debian.Panicked(host) {
				code = broken
			}
		}
	}()
	const prepare = `cp ` + debian.Cargo + `/rum-host-agent /usr/local/bin/ &&
		timeout 300 sh -c 'until virsh -q version; do sleep 1; done' >/dev/null &&
		test -e /dev/vhost-vsock && cut -d. -f1 /proc/uptime`
	out, err := host.Run(ctx, prepare)
	if err != nil {
		return 1, fmt.Errorf("preparing the host VM: %w\n%s", err, out)
	}
	fmt.Printf("the host VM has its libvirtd %s s after power-on\n", strings.TrimSpace(out))
	return m.Run(), nil
}

// agentSwitch lets the tests stop and start the guest's agent from outside, by a connection to a port.
const agentSwitch = `
printf '#!/bin/sh\ntouch /run/agent-off; killall rum-guest-agent; echo off\n' >/bin/agent-off
printf '#!/bin/sh\nrm -f /run/agent-off; echo on\n' >/bin/agent-on
chmod +x /bin/agent-off /bin/agent-on
nc -ll -p 7001 -e /bin/agent-off &
nc -ll -p 7002 -e /bin/agent-on &
nc -ll -p 8080 -e hostname &
greeter &
`

// loadCargo puts what the host VM needs into a directory: the host agent, and the nested guest's kernel and initramfs
// with the guest agent inside.
func loadCargo(ctx context.Context, dir string) (string, error) {
	content := filepath.Join(dir, "cargo")
	if err := os.Mkdir(content, 0o755); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", content, "../../../agent-host/cmd/rum-host-agent", "../../../agent-guest/cmd/rum-guest-agent", "./greeter")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the agents: %w\n%s", err, out)
	}
	kernel, err := vm.FetchKernel(ctx, os.Stderr)
	if err != nil {
		return "", err
	}
	guest := vm.Initramfs{
		Hostname:  "nested",
		Agent:     filepath.Join(content, "rum-guest-agent"),
		AgentArgs: []string{"--listen", "vsock"},
		Files:     map[string]string{"/bin/greeter": filepath.Join(content, "greeter")},
		Script:    agentSwitch,
		Modules:   []string{vm.VsockModule},
	}
	if err := guest.Write(ctx, kernel, filepath.Join(content, "initramfs")); err != nil {
		return "", err
	}
	if err := loadProject(ctx, kernel, content); err != nil {
		return "", err
	}
	image, err := os.ReadFile(kernel.Image)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(content, "vmlinuz"), image, 0o644); err != nil {
		return "", err
	}
	return content, nil
}
