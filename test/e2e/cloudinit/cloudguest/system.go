package cloudguest

import (
	"runtime"

	"github.com/rum-vm/rum-agent/test/debian"
)

// System is what the guest consists of. netplan.io renders the network as in Debian's own cloud image.
var System = debian.System{
	Packages: append([]string{"sudo", "openssh-server", "qemu-guest-agent", "cloud-init", "netplan.io"}, bootLoader[runtime.GOARCH]...),
	Setup:    setup + setupBoot[runtime.GOARCH],
	Size:     2000,
}

// OpenRC is a system with the tools of OpenRC, to be used in a container.
var OpenRC = debian.System{Packages: []string{"openrc"}, Size: 1500}

// setup has no time go into locales and into keys of old kinds. An fstab would name one device for the root file system,
// which is /dev/vda or /dev/vda1. The tests' shell is for guests that have its port.
const setup = `
: >/etc/fstab
cat >/etc/cloud/cloud.cfg.d/90-test.cfg <<'EOT'
locale: C.UTF-8
ssh_genkeytypes: [ed25519]
EOT
mkdir /etc/systemd/system/test-shell.service.d
printf '[Unit]\nConditionPathExists=/dev/virtio-ports/rum.test.shell\n' >/etc/systemd/system/test-shell.service.d/port.conf
systemctl enable systemd-networkd.service
systemctl mask e2scrub_reap.service
`

// bootLoader and setupBoot are what BootableDisk needs, which is for PCs with a BIOS.
var (
	bootLoader = map[string][]string{"amd64": {"grub-pc-bin", "grub-common"}}
	setupBoot  = map[string]string{"amd64": `
mkdir -p /boot/grub
cp /boot/vmlinuz-* /boot/grub/kernel
cp /boot/initrd.img-* /boot/grub/initrd
cp /usr/lib/grub/i386-pc/boot.img /boot/grub/boot.img
grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2 normal linux
cat >/boot/grub/grub.cfg <<'EOT'
linux /boot/grub/kernel root=/dev/vda1 rw quiet console=ttyS0
initrd /boot/grub/initrd
boot
EOT
`}
)
