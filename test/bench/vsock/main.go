package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/rum-vm/rum-agent/test/debian"
	"github.com/rum-vm/rum-agent/test/vm"
)

// nestedCID is the context ID of the VM's guest.
const nestedCID = 5

// limit is for all runs together.
const limit = 3 * time.Hour

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	suites := pflag.StringSlice("suites", []string{"bookworm", "trixie", "sid"}, "Debian releases whose kernels are measured, over vsock loopback")
	guest := pflag.Bool("guest", true, "measure over vhost-vsock too, to a guest of a VM")
	pflag.Parse()
	if err := run(ctx, *suites, *guest, pflag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, suites []string, guest bool, args []string) error {
	dir, err := os.MkdirTemp("", "rum-bench-vsock-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cargo := filepath.Join(dir, "cargo")
	if err := load(ctx, cargo); err != nil {
		return err
	}
	var missed error
	for _, suite := range suites {
		if err := measureKernel(ctx, cargo, suite, args); err != nil {
			missed = errors.Join(missed, fmt.Errorf("the kernel of %s: %w", suite, err))
		}
	}
	if guest {
		missed = errors.Join(missed, measureGuest(ctx, cargo, args))
	}
	return missed
}

// measureGuest measures over vhost-vsock, from a Debian VM to a guest of its own.
func measureGuest(ctx context.Context, cargo string, args []string) error {
	host, err := debian.StartHost(ctx, cargo, os.Stderr)
	if err != nil {
		return err
	}
	defer host.Stop()
	if err := startNested(ctx, host); err != nil {
		return err
	}
	fmt.Printf("\nOver vhost-vsock, to a guest of that machine\n\n")
	return measure(ctx, host, debian.Cargo, nestedCID, args)
}

// measure runs test/bench in the VM, where cargo is, and prints its tables.
func measure(ctx context.Context, host *vm.VM, cargo string, cid int, args []string) error {
	command := fmt.Sprintf("cd /tmp && %[1]s/bench --bin %[1]s --keys %[1]s/keys --cid %[2]d %[3]s 2>/tmp/progress",
		cargo, cid, strings.Join(args, " "))
	tables, err := host.Run(ctx, command)
	fmt.Print(tables)
	if failed, ok := errors.AsType[*vm.ExitError](err); ok {
		progress, _ := host.Run(ctx, "cat /tmp/progress")
		return fmt.Errorf("status %d\n%s", failed.Status, progress)
	}
	return err
}

// startNested boots the VM's guest, virtualized where the VM can, and waits until it is up.
func startNested(ctx context.Context, host *vm.VM) error {
	const command = `accel="tcg"; test -e /dev/kvm && accel="kvm -cpu host"
qemu-system-x86_64 -nodefaults -no-user-config -display none -machine q35 -accel $accel -m 512 \
	-kernel ` + debian.Cargo + `/vmlinuz -initrd ` + debian.Cargo + `/initramfs -append "quiet console=ttyS0" \
	-serial file:/tmp/console -device vhost-vsock-pci,guest-cid=%d -daemonize &&
timeout 600 sh -c 'until grep "is up" /tmp/console; do sleep 1; done'`
	if out, err := host.Run(ctx, fmt.Sprintf(command, nestedCID)); err != nil {
		console, _ := host.Run(ctx, "cat /tmp/console")
		return fmt.Errorf("the guest of the VM does not boot: %w\n%s%s", err, out, console)
	}
	return nil
}

// load fills a directory with what the VM and its guest need.
func load(ctx context.Context, cargo string) error {
	keys := filepath.Join(cargo, "keys")
	if err := os.MkdirAll(keys, 0o755); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"go", "build", "-o", cargo, "./test/bench", "./agent-host/cmd/rum-host-agent", "./agent-guest/cmd/rum-guest-agent"},
		{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", filepath.Join(keys, "host")},
		{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", filepath.Join(keys, "client")},
	} {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
		}
	}
	key, err := os.ReadFile(filepath.Join(keys, "host.pub"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(keys, "known_hosts"), append([]byte("bench "), key...), 0o644); err != nil {
		return err
	}
	kernel, err := vm.FetchKernel(ctx, os.Stderr)
	if err != nil {
		return err
	}
	image, err := os.ReadFile(kernel.Image)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(cargo, "vmlinuz"), image, 0o644); err != nil {
		return err
	}
	return nestedGuest(ctx, kernel, cargo)
}
