package vm

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// serialConsole is the kernel's name of the machine's first serial port.
func serialConsole() string {
	if runtime.GOARCH == "arm64" {
		return "ttyAMA0"
	}
	return "ttyS0"
}

// withoutVGIF leaves one thing out of the AMD virtualization that QEMU emulates.
// The rest lets an emulated guest have guests of its own by KVM, many times
// faster than by emulation within emulation; with the virtual interrupt flag
// too, a VM under QEMU 7.2 was seen to stall.
const withoutVGIF = ",-vgif"

// machineArgs is what every QEMU here starts with: a bare machine with no
// display, no default devices (so no network card) and no user configuration.
func machineArgs(accel string) []string {
	machine, cpu := "q35", "max"
	if runtime.GOARCH == "arm64" {
		machine = "virt"
	}
	switch {
	case accel == "kvm":
		cpu = "host"
	case runtime.GOARCH == "amd64":
		cpu = "max" + withoutVGIF
	}
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", machine, "-accel", accel, "-cpu", cpu,
	}
}

// args is QEMU's command line for a guest in dir.
func (c *Config) args(dir, accel string) []string {
	args := append(machineArgs(accel),
		"-name", "rum-test", "-m", strconv.Itoa(c.Memory), "-smp", strconv.Itoa(c.CPUs),
		"-kernel", c.Boot.Kernel, "-initrd", c.Boot.Initrd, "-append", c.Boot.Append,
		"-chardev", "file,id=console,path="+escape(filepath.Join(dir, "console.log")),
		"-serial", "chardev:console",
		"-qmp", "unix:"+escape(filepath.Join(dir, "qmp"))+",server=on,wait=off",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
	)
	args = append(args, portArgs(AgentPort, c.SerialSocket)...)
	args = append(args, portArgs(ShellPort, filepath.Join(dir, "shell"))...)
	if c.CID != 0 {
		args = append(args, "-device", fmt.Sprintf("vhost-vsock-pci,guest-cid=%d", c.CID))
	}
	for i, nic := range c.Nets {
		device := fmt.Sprintf("virtio-net-pci,netdev=net%d,romfile=", i)
		if nic.MAC != "" {
			device += ",mac=" + nic.MAC
		}
		args = append(args, "-netdev", fmt.Sprintf("%s,id=net%d", nic.Backend, i), "-device", device)
	}
	for i, disk := range c.Disks {
		format := disk.Format
		if format == "" {
			format = "raw"
		}
		drive := fmt.Sprintf("if=none,id=disk%d,format=%s,file=%s", i, format, escape(disk.Path))
		if disk.ReadOnly {
			drive += ",readonly=on"
		}
		if disk.Snapshot {
			drive += ",snapshot=on"
		}
		args = append(args, "-drive", drive, "-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d", i))
	}
	return append(args, c.QEMUArgs...)
}

func portArgs(name, socket string) []string {
	return []string{
		"-chardev", "socket,id=" + name + ",server=on,wait=off,path=" + escape(socket),
		"-device", "virtserialport,chardev=" + name + ",name=" + name,
	}
}

// escape writes a path as a value of a QEMU option, where a comma separates.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }
