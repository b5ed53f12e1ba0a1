package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tcg is QEMU's emulation: slow, but it works everywhere. 512 MiB hold the
// translations of a whole boot.
const tcg = "tcg,thread=multi,tb-size=512"

// kvmTrial is how long a kernel may take to boot under KVM until it finds no
// root file system; on a machine with working KVM that is a second or two.
const kvmTrial = 6 * time.Second

// Accelerator returns QEMU's -accel value to use: RUM_QEMU_ACCEL if set, else
// kvm if k really boots with it, else emulation. That /dev/kvm opens proves
// little: inside some virtual machines it does, and guests then hang. The
// answer is remembered until the host reboots.
func Accelerator(ctx context.Context, k *Kernel) (string, error) {
	switch accel := os.Getenv("RUM_QEMU_ACCEL"); accel {
	case "":
	case "tcg":
		return tcg, nil
	default:
		return accel, nil
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return tcg, nil
	}
	kvm.Close()

	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "accel.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	memory := filepath.Join(cache, "accel")
	if known, err := os.ReadFile(memory); err == nil {
		if id, accel, ok := strings.Cut(string(known), " "); ok && id == strings.TrimSpace(string(boot)) {
			return strings.TrimSpace(accel), nil
		}
	}
	accel := tcg
	if kvmBoots(ctx, k) {
		accel = "kvm"
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return accel, os.WriteFile(memory, []byte(strings.TrimSpace(string(boot))+" "+accel+"\n"), 0o600)
}

// kvmBoots boots k with nothing but memory. A kernel without a root file
// system panics; with panic=-1 and -no-reboot that ends QEMU with status 0.
func kvmBoots(ctx context.Context, k *Kernel) bool {
	ctx, cancel := context.WithTimeout(ctx, kvmTrial)
	defer cancel()
	args := append(machineArgs("kvm"), "-m", "256", "-no-reboot", "-serial", "stdio",
		"-kernel", k.Image, "-append", "panic=-1 console="+serialConsole())
	cmd := exec.CommandContext(ctx, qemuBinary(), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	return err == nil && strings.Contains(string(out), "Kernel panic")
}
