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

	"github.com/rum-vm/rum-agent/test/debian"
	"github.com/rum-vm/rum-agent/test/vm"
)

// nestedCID is the context ID of the VM's guest.
const nestedCID = 5

// limit is for both runs together.
const limit = time.Hour

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	dir, err := os.MkdirTemp("", "rum-bench-vsock-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cargo := filepath.Join(dir, "cargo")
	if err := load(ctx, cargo); err != nil {
		return err
	}
	host, err := debian.StartHost(ctx, cargo, os.Stderr)
	if err != nil {
		return err
	}
	defer host.Stop()

	fmt.Println("Over the vsock loopback of one kernel")
	fmt.Println()
	loopbackErr := measure(ctx, host, 1, args)
	if err := startNested(ctx, host); err != nil {
		return errors.Join(loopbackErr, err)
	}
	fmt.Printf("\nOver vhost-vsock, to a guest of that machine\n\n")
	return errors.Join(loopbackErr, measure(ctx, host, nestedCID, args))
}

// measure runs test/bench in the VM and prints its tables.
func measure(ctx context.Context, host *vm.VM, cid int, args []string) error {
	command := fmt.Sprintf("cd /tmp && %[1]s/bench --bin %[1]s --keys %[1]s/keys --cid %[2]d %[3]s 2>/tmp/progress",
		debian.Cargo, cid, strings.Join(args, " "))
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
