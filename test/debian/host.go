package debian

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rum-vm/rum-agent/test/vm"
)

// Cargo is where a host has the files it was started with, read-only.
const Cargo = "/cargo"

// host is a system that plays the host: it has libvirtd and guests of its own, AF_VSOCK as a host and in loopback, and
// what test/bench compares with.
var host = System{
	Packages: []string{
		"busybox", "dnsmasq-base", "iperf3", "iptables", "libvirt-clients", "libvirt-daemon-driver-qemu",
		"libvirt-daemon-system", "openssh-client", "openssh-server", "qemu-system-x86", "socat",
	},
	Setup: `
printf 'vhost_vsock\nvsock_loopback\n' >/etc/modules-load.d/vsock.conf
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nremember_owner = 0\n' >>/etc/libvirt/qemu.conf
rm -f /etc/libvirt/qemu/networks/autostart/*
systemctl enable libvirtd.service
systemctl mask ssh.service systemd-networkd-wait-online.service
mkdir ` + Cargo + `
echo '/dev/vdb ` + Cargo + ` ext4 ro 0 0' >>/etc/fstab
`,
	Size: 2200,
}

// StartHost boots a system that plays the host, with the files of the directory cargo in it at [Cargo], and returns when
// it runs commands. A disk image is left beside the directory. When its kernel panics, which [Panicked] tells, the
// machine ends. The caller calls [vm.VM.Stop].
func StartHost(ctx context.Context, cargo string, progress io.Writer) (*vm.VM, error) {
	image, err := host.Fetch(ctx, progress)
	if err != nil {
		return nil, err
	}
	disk := filepath.Clean(cargo) + ".img"
	if out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-d", cargo, disk, "250M").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make a disk of %s: %w\n%s", cargo, err, out)
	}
	cfg := image.Config()
	cfg.CPUs, cfg.Memory = 2, 3072
	// A kernel in trouble ends QEMU, and whoever waits learns of it at once.
	cfg.Boot.Append += " oops=panic panic=-1"
	cfg.QEMUArgs = append(cfg.QEMUArgs, "-no-reboot")
	cfg.Disks = append(cfg.Disks, vm.Disk{Path: disk, ReadOnly: true})
	machine, err := vm.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := machine.Ready(ctx); err != nil {
		machine.Stop()
		return nil, err
	}
	return machine, nil
}

// Panicked tells whether the kernel of a host panicked. No program in it can be to blame for that, but an emulated
// processor can: under QEMU 7.2, with a guest of its own by emulated SVM, a host now and then finds its memory
// corrupted.
func Panicked(host *vm.VM) bool {
	return strings.Contains(host.Console(), "Kernel panic - not syncing")
}
